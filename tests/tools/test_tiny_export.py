"""What training sees is what the engine runs: the nets, written out as the engine's files, give the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engines.model_spec import START_SPEECH_TOKEN, STOP_SPEECH_TOKEN, TINY
from engines.s3gen.nets.cfm import EulerSolver
from engines.s3gen.nets.flow import load_flow
from engines.s3gen.nets.vocoder import Vocoder
from engines.s3gen.nets.vocoder_weights import load_vocoder
from engines.t3.kv_cache import KvSlot
from engines.t3.model import Span, T3Net
from tools.tiny import codes, export, train_flow, train_vocoder
from tools.tiny.lexicon import END, SLOTS
from tools.tiny.t3_net import T3Train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _t3() -> T3Train:
    draw = np.random.default_rng(0)
    symbols = np.full((TINY.t3.text_vocab, SLOTS + 1), END)
    symbols[:, :4] = draw.integers(0, len(codes.PHONES), (len(symbols), 4))
    return T3Train(TINY.t3, torch.from_numpy(symbols), torch.from_numpy(draw.integers(0, 2, symbols.shape))).eval()


@torch.inference_mode()
def test_t3s_tables_give_the_log_probabilities_of_training(tmp_path: Path) -> None:
    train = _t3()
    save_file(train.tables(), tmp_path / "t3.safetensors")
    net = T3Net.load(tmp_path / "t3.safetensors", TINY, CPU)
    draw = np.random.default_rng(1)
    text = draw.integers(0, TINY.t3.text_vocab, 9)
    sounds, counters = draw.integers(0, len(codes.PHONES) * 10, 20), draw.integers(0, codes.COUNTERS, 20)
    speaker = draw.standard_normal(256).astype(np.float32)
    speech = codes.encode(sounds, counters)
    embedded = torch.cat(
        [net.embed_speaker(speaker), net.embed_text(text.tolist()), net.embed_speech([START_SPEECH_TOKEN, *speech])]
    )
    slot = KvSlot(TINY.t3, 64, CPU)
    slot.reserve(len(embedded))
    logits = net.speech_logits(net.forward(embedded, [Span(slot, 0, len(embedded))])[10:])
    ours = torch.log_softmax(logits, dim=-1)[torch.arange(21), torch.tensor([*speech, STOP_SPEECH_TOKEN])]
    x = torch.cat(
        [
            train.speaker(torch.from_numpy(speaker))[None],
            train.text_rows(torch.from_numpy(text)),
            train.start_in[None],
            train.speech_rows(torch.from_numpy(sounds), torch.from_numpy(counters)),
        ]
    )
    hidden = train.hidden(x[None], torch.arange(len(x))[None])[0, 10:]
    after = torch.tensor([*sounds, 0]), torch.tensor([*counters, 0]), torch.arange(21) == 20
    theirs, total = train.log_probabilities(hidden, *after)
    # the engine leaves out the two spare phones, which training gives a share that shrinks to nothing
    kept = torch.logsumexp(logits, dim=-1) - total
    assert torch.all(kept <= 1e-5)
    torch.testing.assert_close(ours + kept, theirs, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_vocoder_of_the_file_is_the_one_that_was_trained(tmp_path: Path) -> None:
    net = train_vocoder.init(Vocoder(TINY.vocoder)).eval()
    for name, value in net.named_parameters():
        if "alpha" in name:
            value.copy_(0.5 + torch.rand_like(value))
    save_file(export.vocoder_tensors(net), tmp_path / "s3gen.safetensors")
    loaded = load_vocoder(tmp_path / "s3gen.safetensors", TINY)
    mel = torch.randn(1, 20, 80) - 6
    rest = torch.zeros(1, 20), torch.zeros(1).long(), torch.zeros(1), torch.zeros(1, 9), torch.randn(1, 20 * 480)
    for ours, theirs in zip(loaded(mel, None, *rest), net(mel, None, *rest), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_flow_of_the_file_hears_sounds_through_any_of_their_codes(tmp_path: Path) -> None:
    encoder = train_flow.make_encoder(TINY.flow).eval()
    save_file(export.flow_tensors(encoder, train_flow.make_cfm(TINY.flow)), tmp_path / "s3gen.safetensors")
    loaded = load_flow(tmp_path / "s3gen.safetensors", TINY)
    draw = np.random.default_rng(2)
    sounds, counters = draw.integers(0, len(codes.PHONES) * 10, (1, 30)), draw.integers(0, codes.COUNTERS, (1, 30))
    x_vector = torch.randn(1, 192)
    ours, _ = loaded.encoder(torch.from_numpy(codes.encode(sounds, counters)), None, x_vector)
    theirs, _ = encoder(torch.from_numpy(sounds), None, x_vector)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_cfm_begins_as_a_jump_to_mu_that_leaves_no_noise_behind() -> None:
    solver = EulerSolver(train_flow.make_cfm(TINY.flow))
    mu = 2.5 * torch.randn(2, 60, 80) - 6
    mel = solver(torch.randn(2, 60, 80), mu, torch.randn(2, 80), torch.randn(2, 60, 80), None)
    assert (mel - mu).abs().max() < 0.05
