"""The net that reads words beside vLLM computes with the engine's own tensors, and with those of the next one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from engines.errors import EngineFailure
from engines.t3.alignment.lent import LentNet
from engines.t3.alignment.memory import made_bytes
from engines.t3.alignment.reader import ReadSegment, SegmentReader, ToRead
from engines.t3.alignment.tap import F32, AlignmentHeads
from engines.t3.backend import T3Request
from engines.t3.load import TorchNet
from engines.t3.vllm.decoder import VllmDecoder
from tests.engines.t3 import setting as gpt2
from tests.engines.t3.llama import setting as llama
from tests.vllm.setting import engine, runner, vllm_decoder

HEADS = AlignmentHeads(((0, 1), (2, 0)))
SPEECH = [5, 900, 33, 6000, 12, 77, 4096, 1, 2, 3]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def decoder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmDecoder]:
    made = vllm_decoder(tmp_path_factory.mktemp("model"), None if family == "gpt2" else llama.checkpoint())
    yield made
    made.close()


def tensors_of(thing: Any) -> list[Tensor]:
    """All tensors that an object holds."""
    if isinstance(thing, Tensor):
        return [thing]
    if isinstance(thing, dict):
        parts = list(thing.values())
    else:
        parts = list(thing) if isinstance(thing, (list, tuple)) else list(getattr(thing, "__dict__", {}).values())
    return [tensor for part in parts for tensor in tensors_of(part)]


def read(net: TorchNet, request: T3Request) -> F32:
    with torch.inference_mode():
        return SegmentReader(HEADS, 600).read(net, [ToRead(ReadSegment(request), SPEECH)])[0]


def request_of(family: str) -> tuple[TorchNet, T3Request]:
    return (gpt2.net(), gpt2.request(3)) if family == "gpt2" else (llama.net(), llama.request(3))


def lend(decoder: VllmDecoder) -> LentNet:
    lent = LentNet(HEADS.net_layers)
    engine(decoder).lend(lent)
    return lent


def test_every_weight_is_the_models_own_and_nothing_is_copied(decoder: VllmDecoder) -> None:
    model = runner(decoder).model
    owned = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    lent = lend(decoder)
    net = lent.call(lambda net: net)
    assert net.spec.layers == HEADS.net_layers < runner(decoder).model_config.hf_config.num_hidden_layers
    shared = [tensor for tensor in tensors_of(net) if tensor.untyped_storage().data_ptr() in owned]
    own = {id(each): each.nbytes for each in tensors_of(net) if each.untyped_storage().data_ptr() not in owned}
    assert len({tensor.data_ptr() for tensor in shared}) > 8 * HEADS.net_layers
    # of float32 here, and rows of padding that a GPU does not need
    assert sum(own.values()) <= 2 * made_bytes(net.spec) + 3 * 4 * net.spec.width
    matrices = [tensor for tensor in tensors_of(net._blocks) if tensor.dim() == 2]
    assert len(matrices) == 4 * HEADS.net_layers
    assert all(tensor.untyped_storage().data_ptr() in owned for tensor in matrices)


def test_it_reads_what_a_net_with_tensors_of_its_own_reads(decoder: VllmDecoder, family: str) -> None:
    own, request = request_of(family)
    ours = lend(decoder).call(lambda net: read(net, request))
    np.testing.assert_allclose(ours, read(own, request), atol=2e-5)
    assert ours.std() > 1e-3


def test_a_closed_engine_takes_its_net_back_first_and_the_next_one_lends_its_own(tmp_path: Path) -> None:
    """A pass that runs ends first; one that comes meanwhile waits for the next engine."""
    request = gpt2.request(3)
    lent, first = LentNet(HEADS.net_layers), vllm_decoder(tmp_path)
    engine(first).lend(lent)
    weight = StorageWeakRef(runner(first).model.get_parameter("head.weight").untyped_storage())
    assert not weight.expired()
    reading, may_end = threading.Event(), threading.Event()
    done: list[str] = []

    def slow(net: TorchNet) -> F32:
        reading.set()
        assert may_end.wait(60)
        rows = read(net, request)
        done.append("pass")
        return rows

    with ThreadPoolExecutor(3) as threads:
        before = threads.submit(lent.call, slow)
        assert reading.wait(60)
        closed = threads.submit(lambda: (first.close(), done.append("closed")))
        assert not closed.done()
        may_end.set()
        closed.result(60)
        assert done == ["pass", "closed"]
        assert weight.expired(), "the first engine's tensors are kept"
        after = threads.submit(lent.call, lambda net: (read(net, request), tensors_of(net)))
        second = vllm_decoder(tmp_path)
        assert not after.done()
        engine(second).lend(lent)
        rows, tensors = after.result(60)
    np.testing.assert_array_equal(rows, before.result())
    owned = {tensor.untyped_storage().data_ptr() for tensor in runner(second).model.parameters()}
    assert {tensor.untyped_storage().data_ptr() for tensor in tensors} & owned
    second.close()
    lent.end()
    with pytest.raises(EngineFailure, match="closed"):
        lent.call(lambda net: net)
