"""What training sees is what the engine runs: the nets, written out as the engine's files, give the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.model_spec import SPEECH_CODES, START_SPEECH_TOKEN, STOP_SPEECH_TOKEN
from engines.s3gen.nets.flow import load_flow
from engines.s3gen.nets.vocoder import Vocoder
from engines.s3gen.nets.vocoder_weights import load_vocoder
from engines.t3.kv_cache import KvSlot
from engines.t3.model import T3Net
from engines.t3.net import Span
from tools.tiny import codes, export, train_flow, train_vocoder
from tools.tiny.compose import END
from tools.tiny.engine import TINY
from tools.tiny.nets import Run
from tools.tiny.pronounce import SLOTS
from tools.tiny.t3_net import T3Train
from tools.tiny.train_flow import Windows

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@torch.inference_mode()
def test_t3s_tables_give_the_log_probabilities_of_training(tmp_path: Path) -> None:
    train, draw = T3Train(TINY.t3).eval(), np.random.default_rng(0)
    symbols = np.full((TINY.t3.text_vocab, SLOTS + 1), END)
    symbols[:, :4] = draw.integers(0, END, (len(symbols), 4))
    spelled = torch.from_numpy(symbols), torch.from_numpy(draw.integers(0, 2, symbols.shape))
    save_file(train.tables(*spelled), tmp_path / "t3.safetensors")
    net = T3Net.load(tmp_path / "t3.safetensors", TINY, CPU)
    text, speech = draw.integers(0, TINY.t3.text_vocab, 9), _codes(draw, 20)
    speaker = draw.standard_normal(256).astype(np.float32)
    embedded = torch.cat(
        [net.embed_speaker(speaker), net.embed_text(text.tolist()), net.embed_speech([START_SPEECH_TOKEN, *speech])]
    )
    slot = KvSlot(TINY.t3, 64, CPU)
    slot.reserve(len(embedded))
    logits = net.speech_logits(net.forward(embedded, [Span(slot, 0, len(embedded))])[10:])
    ours = torch.log_softmax(logits, dim=-1)[torch.arange(21), torch.tensor([*speech, STOP_SPEECH_TOKEN])]
    group, index = (torch.from_numpy(part) for part in codes.parts(speech))
    rows = [train.speaker[None], train.text_rows(*(part[text] for part in spelled)), train.start[None]]
    x = torch.cat([*rows, train.code_rows(group, index)])
    hidden = train.hidden((x + train.position_rows(torch.arange(len(x))))[None])[0, 10:]
    after = torch.cat([group, group[:1]]), torch.cat([index, index[:1]]), torch.arange(21) == 20
    theirs, _ = train.log_probabilities(hidden, *after)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def _codes(draw: np.random.Generator, count: int) -> codes.Ints:
    """That have a meaning."""
    ids = np.arange(SPEECH_CODES)
    return draw.choice(ids[codes.join(*codes.parts(ids)) == ids], count)


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
    speech = _codes(draw, 30)
    x_vector = torch.randn(1, 192)
    ours, _ = loaded.encoder(torch.from_numpy(speech)[None], None, x_vector)
    theirs, _ = encoder(torch.from_numpy(codes.sounds_of(speech))[None], None, x_vector)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_flow_of_a_file_is_what_training_exported(tmp_path: Path) -> None:
    encoder, cfm = train_flow.make_encoder(TINY.flow).eval(), train_flow.make_cfm(TINY.flow).eval()
    save_file(export.flow_tensors(encoder, cfm), tmp_path / "s3gen.safetensors")
    heard = torch.from_numpy(np.random.default_rng(3).integers(codes.SOUNDS, size=(2, 30)))
    made = Windows(heard, torch.randn(2, 60, 80), torch.randn(2, 192), 20, np.zeros(2, np.int64), np.zeros(2, np.int64))
    mels = []
    for flow in (train_flow.Flow(encoder, cfm), train_flow.load(tmp_path / "s3gen.safetensors")):
        torch.manual_seed(1)
        mels.append(flow.mel(made))
    torch.testing.assert_close(*mels, atol=1e-4, rtol=1e-4)


def test_a_vocoder_is_replaced_alone(tmp_path: Path) -> None:
    path, other = tmp_path / TINY.s3gen_name, {"flow.other": torch.randn(3)}
    save_file(other | export.vocoder_tensors(Vocoder(TINY.vocoder)), path)
    run = Run(tmp_path / "run")
    export.replace_vocoder(run, tmp_path)
    assert torch.equal(load_file(path)["flow.other"], other["flow.other"])
    wanted = run.trained("vocoder").state_dict()
    for name, value in load_vocoder(path, TINY).state_dict().items():
        torch.testing.assert_close(value, wanted[name], atol=1e-3, rtol=2e-3)  # half precision


@torch.inference_mode()
@pytest.mark.parametrize(("t", "r"), [(0.0, 0.0), (0.0, 0.5), (0.25, 0.25), (0.5, 0.5), (0.5, 1.0), (0.75, 0.75)])
def test_the_cfm_begins_as_the_velocity_from_x_to_mu(t: float, r: float) -> None:
    cfm = train_flow.make_cfm(TINY.flow)
    mu, noise = 2.5 * torch.randn(2, 60, 80) - 6, torch.randn(2, 60, 80)
    x = torch.lerp(noise, mu, t)
    velocity = cfm(x, mu, torch.randn(2, 80), torch.randn(2, 60, 80), None, torch.full((2,), t), torch.full((2,), r))
    assert (velocity - (mu - noise)).abs().mean() < 0.6
    near = cfm(mu, mu, torch.randn(2, 80), mu, None, torch.full((2,), t), torch.full((2,), r))
    assert near.abs().max() < 0.05
