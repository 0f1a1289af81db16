"""T3 on ONNX Runtime decodes what T3 on torch decodes, and 8-bit weights change the draws little."""

from __future__ import annotations

import asyncio
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.errors import InvalidInput
from engines.model_spec import TINY
from engines.t3.decoder import T3Decoder
from engines.t3.kv_cache import KvSlot
from engines.t3.local_backend import LocalT3Backend
from engines.t3.model import T3Net
from engines.t3.net import Span
from engines.t3.onnx.export import export_t3, open_onnx_net
from engines.t3.onnx.net import OnnxT3Net
from engines.t3.sampler import Sampler
from tests.engines.t3.setting import CPU, checkpoint, limits, net, request, run, voice

# Total variation between what the two precisions would draw from, at upstream's settings; 0 is the same, 1 disjoint.
INT8_DIVERGENCE = 0.05


@cache
def onnx_net(precision: str) -> OnnxT3Net:
    return open_onnx_net(checkpoint(), precision, threads=1)


@torch.inference_mode()
def logits_along(of: T3Net, speech_tokens: list[int], chunk: int) -> torch.Tensor:
    """Logits after each of `speech_tokens`, the first half read as a prompt in chunks, the rest one by one."""
    slot, rows = KvSlot(TINY.t3, 2048, CPU), []
    embeddings, half = of.embed_speech(speech_tokens), len(speech_tokens) // 2
    starts = [*range(0, half, chunk), *range(half, len(speech_tokens)), len(speech_tokens)]
    for start, stop in pairwise(starts):
        slot.reserve(stop)
        rows.append(of.forward(embeddings[start:stop], [Span(slot, start, stop - start)]))
        slot.length = stop
    return of.speech_logits(torch.cat(rows))


def some_tokens(count: int) -> list[int]:
    speech_tokens: list[int] = np.random.default_rng(1).integers(0, 6561, count).tolist()
    return speech_tokens


@pytest.mark.parametrize("chunk", [7, 64])
def test_logits_equal_torch_while_the_cache_grows(chunk: int) -> None:
    speech_tokens = some_tokens(600)  # the slot moves to larger memory at 256 and 512
    ours, theirs = logits_along(onnx_net("fp32"), speech_tokens, chunk), logits_along(net(), speech_tokens, chunk)
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


def test_sequences_decoded_together_equal_torch_one_by_one() -> None:
    requests = [request(seed, text=10 + seed, max_speech_tokens=40) for seed in range(3)]
    together = run(T3Decoder(onnx_net("fp32"), limits(prefill_chunk_positions=16)), *requests)
    assert together == [run(T3Decoder(net(), limits()), each)[0] for each in requests]


def test_known_voice_is_not_read_again_and_changes_nothing() -> None:
    one = voice(5)
    decoder = T3Decoder(onnx_net("fp32"), limits())
    first = run(decoder, request(1, of=one, max_speech_tokens=20))
    read = decoder.prefilled_positions
    assert run(decoder, request(1, of=one, max_speech_tokens=20)) == first
    assert decoder.prefilled_positions - read < read - 70  # the voice's 76 positions came from the cache


def test_int8_stays_close_to_fp32_for_the_sampler() -> None:
    speech_tokens = some_tokens(80)
    exact, small = (logits_along(onnx_net(precision), speech_tokens, 16) for precision in ("fp32", "int8"))
    rows = [0] * len(speech_tokens)
    sampler = Sampler(1, CPU)
    sampler.begin(0, request().sampling)
    p, q = (sampler.probabilities(rows, logits) for logits in (exact, small))
    divergence = 0.5 * (p - q).abs().sum(-1)
    assert 0 < float(divergence.mean()) < INT8_DIVERGENCE
    assert float((exact.argmax(-1) == small.argmax(-1)).float().mean()) > 0.8


def test_int8_graph_is_a_third_of_the_size_or_less() -> None:
    sizes = [(export_t3(checkpoint(), p) / "blocks.onnx").stat().st_size for p in ("fp32", "int8")]
    assert sizes[1] < 0.34 * sizes[0]


async def test_backend_speaks_and_closes() -> None:
    backend = LocalT3Backend(onnx_net("int8"), limits(max_streams=2))
    generation = backend.start(request(2, max_speech_tokens=12))
    speech_tokens: list[int] = []
    async with asyncio.timeout(60):
        while more := await generation.next_speech_tokens():
            speech_tokens += more
    await backend.close()
    assert len(speech_tokens) > 3
    assert speech_tokens[-3:] == [4299] * 3


def test_unknown_precision_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="fp32 or int8"):
        export_t3(checkpoint(), "int4", cache_dir=tmp_path)
