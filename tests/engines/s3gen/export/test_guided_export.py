"""Graphs with guidance: a step computes both lanes of every row, and ONNX Runtime runs it for each of the steps."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest

from engines.s3gen.export.block_graphs import CFM_BLOCK, ENCODER_BLOCK, block_nets
from engines.s3gen.export.check import TOLERANCE, check_graph, frames_of, lengths_of_rows
from engines.s3gen.export.export import Export, ExportSettings, export, graphs_of
from engines.s3gen.export.graphs import CFM, CFM_STEP, VOCODER, load_nets, random_inputs
from engines.s3gen.gpu.buckets import Bucket, buckets
from engines.s3gen.gpu.build import BuildSettings, build_engine, engine_graphs
from engines.s3gen.gpu.trt import load_tensorrt
from engines.s3gen.nets import cfm
from engines.s3gen.parity_check import validate
from engines.s3gen.runtimes.onnx import OnnxRuntime
from engines.s3gen.runtimes.onnx_cached import OnnxCachedRuntime
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from tests.engines.fakes import make_voice
from tests.engines.s3gen import small_nets
from tests.engines.s3gen.cache.test_cached_flow import difference, speech_tokens_of, streamed
from tests.engines.s3gen.small_nets import GUIDED_TINY

NAMES = (CFM_STEP.name, CFM_BLOCK)
COMPOSITIONS = ((30,), (24, 24), (32, 13, 21))


@pytest.fixture(scope="module")
def base() -> TorchRuntime:
    return TorchRuntime(small_nets.checkpoint(GUIDED_TINY))


@cache
def made(precision: str) -> Export:
    """Made once per state of the code and kept in the cache folder."""
    return export(small_nets.checkpoint(GUIDED_TINY), ExportSettings(NAMES, True, precision))


def test_there_is_no_graph_of_all_steps() -> None:
    names = graphs_of(GUIDED_TINY)
    assert "cfm" not in names
    assert {*NAMES, ENCODER_BLOCK, "encoder", VOCODER.name} == names.keys()
    assert engine_graphs(GUIDED_TINY.flow) == ("encoder", "cfm_step", "vocoder")
    assert engine_graphs(small_nets.TINY.flow) == ("encoder", "cfm", "vocoder")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_graph_agrees_with_its_net(name: str, precision: str) -> None:
    checkpoint = small_nets.checkpoint(GUIDED_TINY)
    net = (load_nets(checkpoint) | block_nets(checkpoint))[name]
    report = check_graph(
        graphs_of(GUIDED_TINY)[name], net, made(precision).path(name), padded=True, precision=precision
    )
    report.raise_if_bad(name)
    assert 0 < report.frame_error < TOLERANCE[precision]


def test_a_step_builds_for_the_a10g_and_can_be_captured() -> None:
    path, bucket = made("fp16").path(CFM_STEP.name), Bucket((1, 2, 4), (4, 16, 64))
    engine = build_engine(path, CFM_STEP, [bucket], BuildSettings("sm86"), load_tensorrt("tensorrt_rtx"))
    assert engine.nbytes > 100_000
    operators = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert not operators & {"Loop", "If", "Scan", "NonZero"}
    assert buckets(CFM_STEP) == buckets(CFM)


def test_a_block_s_rows_are_all_conditional_lanes_then_all_others() -> None:
    graph = graphs_of(GUIDED_TINY)[CFM_BLOCK]
    arrays = random_inputs(graph, [21, 9], seed=3)
    tails = next(port for port in graph.inputs if port.name == "tails")
    assert arrays["tails"].shape[0] == 4
    assert lengths_of_rows(graph, tails, [21, 9]) == [21, 9, 21, 9]
    keys = next(port for port in graph.outputs if port.name == "keys_0")
    assert frames_of(graph, keys, np.zeros((2, 30, 32), np.float32), 9).shape == (9, 2 * 32)


def test_onnx_runtime_passes_the_parity_check(base: TorchRuntime) -> None:
    runtime = OnnxRuntime(small_nets.checkpoint(GUIDED_TINY), threads=1, vocoder=base)
    report = validate(runtime, base, precision="fp32", compositions=COMPOSITIONS)
    assert report.passed, str(report)
    assert report.frame_error > 0


def test_the_parity_check_finds_a_lane_that_is_missing(base: TorchRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = OnnxRuntime(small_nets.checkpoint(GUIDED_TINY), threads=1, vocoder=base)
    monkeypatch.setattr(cfm, "GUIDANCE", 0.6)  # of torch's; the graph holds what it was exported with
    report = validate(runtime, base, precision="fp16", compositions=((30,),))
    assert not report.passed
    assert report.frame_error > TOLERANCE["fp16"]


@pytest.mark.parametrize("seed", range(2))
def test_cached_decoding_equals_torchs(base: TorchRuntime, seed: int) -> None:
    blocks = [(9, 3), (14, 7), (1, 3), (5, 0)]
    voice, speech_tokens = make_voice(20 + seed), speech_tokens_of(60, seed)
    runtime = OnnxCachedRuntime(small_nets.checkpoint(GUIDED_TINY), base, threads=1, context_tokens=12)
    on_torch = streamed(TorchCachedRuntime(base, context_tokens=12), voice, speech_tokens, blocks)
    assert difference(streamed(runtime, voice, speech_tokens, blocks), on_torch) < 3e-5


def test_the_parity_check_compares_blocks_too(base: TorchRuntime) -> None:
    runtime = OnnxCachedRuntime(small_nets.checkpoint(GUIDED_TINY), base, threads=1)
    report = validate(runtime, TorchCachedRuntime(base), precision="fp32", compositions=((20,),))
    assert report.passed, str(report)
