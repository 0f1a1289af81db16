"""Loading T3 from a file of upstream's layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file

from engines.errors import CheckpointError
from engines.kernels.dense import WeightFormat, fp16_supported
from engines.model_spec import NANO, SPEECH_CODES, TINY, TURBO, ModelSpec
from engines.packed_linear import PackedLinear, packing_available
from engines.t3.decoder import T3Decoder
from engines.t3.kv_cache import KvSlot
from engines.t3.linear import CompiledLinear, DenseLinear
from engines.t3.model import T3Net, expected_tensors
from engines.t3.net import Span
from engines.t3.random_weights import random_tensors
from engines.t3.sampler import Sampler
from tests.engines.t3.setting import CPU, checkpoint, limits, net, request, run


def test_every_wrong_tensor_is_named(tmp_path: Path) -> None:
    tensors = load_file(checkpoint().t3_path)
    del tensors["tfmr.h.2.mlp.c_fc.bias"], tensors["speech_head.bias"]
    tensors["tfmr.h.0.ln_1.weight"] = tensors["tfmr.h.0.ln_1.weight"][:-1]
    save_file(tensors, tmp_path / "t3.safetensors")
    with pytest.raises(CheckpointError) as raised:
        T3Net.load(tmp_path / "t3.safetensors", TINY, CPU)
    for name in ("tfmr.h.2.mlp.c_fc.bias", "speech_head.bias", "tfmr.h.0.ln_1.weight"):
        assert name in str(raised.value)
    assert "wpe" not in str(raised.value)


def test_the_tensors_of_training_are_not_needed(tmp_path: Path) -> None:
    tensors = load_file(checkpoint().t3_path)
    del tensors["tfmr.wte.weight"], tensors["text_head.weight"]
    save_file(tensors, tmp_path / "t3.safetensors")
    bare = T3Net.load(tmp_path / "t3.safetensors", TINY, CPU)
    asked = request(1, temperature=0, max_speech_tokens=5)
    assert run(T3Decoder(bare, limits()), asked) == run(T3Decoder(net(), limits()), asked)


@pytest.mark.skipif(not packing_available(), reason="without packing the matrices stay in the mapped file")
def test_packed_blocks_let_go_of_the_file(tmp_path: Path) -> None:
    """Only the embeddings keep it mapped: once, not once per block."""
    path = tmp_path / "t3.safetensors"
    shutil.copy(checkpoint().t3_path, path)
    loaded = T3Net.load(path, TINY, CPU)
    assert Path("/proc/self/maps").read_text().count(str(path)) == 1
    del loaded
    assert str(path) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(("spec", "run_per_token"), [(TURBO, 309_000_000), (NANO, 90_000_000)])
def test_the_table_has_the_models_size(spec: ModelSpec, run_per_token: int) -> None:
    """Parameters that every token goes through: the blocks and the head."""
    shapes = expected_tensors(spec)
    used = [shape for name, shape in shapes.items() if name.startswith(("tfmr.h.", "tfmr.ln_f", "speech_head"))]
    assert sum(torch.Size(shape).numel() for shape in used) == pytest.approx(run_per_token, rel=0.01)


@pytest.mark.skipif(not packing_available(), reason="this torch build has no oneDNN")
@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("outputs", [160, 37])
def test_every_linear_gives_what_a_plain_one_gives(rows: int, outputs: int) -> None:
    weight, bias = torch.randn(96, outputs), torch.randn(outputs)
    dense = DenseLinear(weight, bias)
    x, residual = torch.randn(rows, 96), torch.randn(rows, outputs)
    for fast in (PackedLinear(weight.t(), bias), CompiledLinear(weight, bias, weights="float32")):
        torch.testing.assert_close(fast(x), dense(x), rtol=0, atol=1e-4)
        torch.testing.assert_close(fast.gelu(x), dense.gelu(x), rtol=0, atol=1e-4)
        torch.testing.assert_close(fast.add(x, residual), dense.add(x, residual), rtol=0, atol=1e-4)
    torch.testing.assert_close(dense.gelu(x), F.gelu(x @ weight + bias, approximate="tanh"), rtol=0, atol=1e-4)


def test_random_tensors_are_all_of_the_file_and_depend_on_the_seed_alone() -> None:
    tensors = dict(random_tensors(TINY, 0))
    shapes = expected_tensors(TINY)
    unused = dict.fromkeys(("tfmr.wte.weight", "text_head.weight"), (TINY.t3.text_vocab, TINY.t3.width))
    assert {name: tensor.shape for name, tensor in tensors.items()} == shapes | unused
    again, other = dict(random_tensors(TINY, 0)), dict(random_tensors(TINY, 1))
    assert all((tensors[name] == again[name]).all() for name in tensors)
    assert all((tensors[name] != other[name]).any() for name in tensors)


def test_random_weights_speak_for_a_while_and_then_stop() -> None:
    requests = [request(seed) for seed in range(32)]
    drawn = run(T3Decoder(net(), limits(max_streams=16)), *requests)
    lengths = torch.tensor([float(len(raw)) for raw in drawn])
    assert 40 < lengths.mean() < 140
    assert lengths.std() > 20
    assert lengths.max() < 1001, "each came to an end of its own"
    marks = sum(raw.count(6561) for raw in drawn)
    assert marks < lengths.sum() / 500


@pytest.mark.skipif(not fp16_supported(), reason="this CPU keeps no weights in float16")
@pytest.mark.parametrize(
    ("weights", "most_variation", "least_greedy"), [("float16", 0.02, 0.99), ("int8", 0.06, 0.9)], ids=str
)
def test_smaller_weights_hardly_change_the_draws(
    weights: WeightFormat, most_variation: float, least_greedy: float
) -> None:
    """The bound of a default is a total variation of 0.02 and a greedy agreement of 0.99 (random:nano in float16:
    0.0017, 0.995). 8 bits miss it, and are taken only where nothing else speaks in real time."""
    smaller = T3Net.load(checkpoint().t3_path, TINY, CPU, weights=weights)
    speech_tokens = np.random.default_rng(1).integers(0, SPEECH_CODES, 400).tolist()
    with torch.inference_mode():
        exact, small = (_logits(one, speech_tokens) for one in (net(), smaller))
    sampler = Sampler(1, CPU)
    sampler.begin(0, request().sampling)
    p, q = (sampler.probabilities([0] * len(speech_tokens), logits) for logits in (exact, small))
    assert 0 < float(0.5 * (p - q).abs().sum(-1).mean()) < most_variation
    assert float((exact.argmax(-1) == small.argmax(-1)).float().mean()) > least_greedy


def _logits(of: T3Net, speech_tokens: list[int]) -> torch.Tensor:
    slot = KvSlot(TINY.t3, 2048, CPU)
    slot.reserve(len(speech_tokens))
    return of.speech_logits(of.forward(of.embed_speech(speech_tokens), [Span(slot, 0, len(speech_tokens))]))
