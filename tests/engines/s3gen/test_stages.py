"""Where a window's time goes: encoder, CFM and vocoder wherever the runtime leaves one for the other on the CPU."""

from __future__ import annotations

import time

import pytest

from engines.s3gen.runtime import Runtime
from engines.s3gen.runtimes.onnx import OnnxRuntime
from engines.s3gen.runtimes.onnx_cached import OnnxCachedRuntime
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.s3gen.streaming.segment_decoder import SegmentDecoder, decode_windows
from engines.s3gen.streaming.windows import Window
from tests.engines.fakes import FakeRuntime, make_voice
from tests.engines.s3gen.onnx_setting import checkpoint

# the second one's cache starts behind the first: what it missed is decoded in a call of its own
WINDOWS = [Window(0, 0, 0, 9, 12, is_last=False), Window(1, 4, 9, 20, 20, is_last=True)]


@pytest.fixture(scope="module")
def runtimes() -> dict[str, Runtime]:
    torch = TorchRuntime(checkpoint())
    cached = OnnxCachedRuntime(checkpoint(), torch, threads=1)
    made: list[Runtime] = [torch, TorchCachedRuntime(torch), OnnxRuntime(checkpoint(), threads=1), cached]
    return {runtime.name: runtime for runtime in made}


def stages_of(runtime: Runtime, windows: list[Window]) -> tuple[list[str], float, float]:
    """Stages in their order, what they took together and what all of it took, s."""
    work, reported = [], []
    for window in windows:
        decoder = SegmentDecoder(make_voice(10), seed=1)
        decoder.speech_tokens = list(range(20))
        work.append((decoder, window))
    began_s = time.perf_counter()
    decode_windows(runtime, work, lambda stage, seconds: reported.append((stage, seconds)))
    wall_s = time.perf_counter() - began_s
    assert all(seconds > 0 for _, seconds in reported)
    return [stage for stage, _ in reported], sum(seconds for _, seconds in reported), wall_s


@pytest.mark.parametrize("name", ["torch", "torch-cached", "onnx", "onnx-cached"])
def test_encoder_cfm_and_vocoder_are_told_apart(runtimes: dict[str, Runtime], name: str) -> None:
    runtime = runtimes[name]
    for windows in ([WINDOWS[0]], WINDOWS):  # more rows, and more calls, are still one stage each
        before_s = runtime.cfm_s
        stages, together_s, wall_s = stages_of(runtime, windows)
        assert stages == ["encoder", "cfm", "vocoder"]
        assert together_s <= wall_s
        assert before_s is not None
        assert runtime.cfm_s is not None
        assert 0 < runtime.cfm_s - before_s < together_s


def test_a_flow_in_one_piece_is_one_stage() -> None:
    assert stages_of(FakeRuntime(), WINDOWS)[0] == ["flow", "vocoder"]
