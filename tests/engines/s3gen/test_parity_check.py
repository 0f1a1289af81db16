"""Only a runtime that agrees with a trusted one serves; every other is refused loudly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from engines.errors import InvalidInput
from engines.s3gen.export.graphs import CFM, ENCODER, VOCODER
from engines.s3gen.gpu.buckets import buckets, choose_profile, graph_sizes, max_rows, on_grid
from engines.s3gen.gpu.cuda import CudaUnavailable
from engines.s3gen.parity_check import (
    _MAX_VOCODER_FRAMES,
    GPU_COMPOSITIONS,
    LARGEST_COMPOSITIONS,
    Candidate,
    RuntimeRefused,
    select_first_valid,
    validate,
)
from engines.s3gen.runtime import F32, FlowBatch, Runtime, VocoderBatch, VocoderResult
from engines.s3gen.runtimes.onnx import OnnxRuntime
from engines.s3gen.runtimes.torch import TorchRuntime
from tests.engines.s3gen.onnx_setting import checkpoint


@pytest.fixture(scope="module")
def torch() -> TorchRuntime:
    return TorchRuntime(checkpoint())


class Faulty:
    """A runtime whose results something happens to."""

    name = "faulty"
    cfm_s = None

    def __init__(self, of: Runtime, mel: Callable[[F32], None], wave: Callable[[F32], None]) -> None:
        self._of, self._mel, self._wave = of, mel, wave

    def flow(self, batch: FlowBatch) -> F32:
        mel = self._of.flow(batch).copy()
        self._mel(mel)
        return mel

    def vocoder(self, batch: VocoderBatch) -> VocoderResult:
        result = self._of.vocoder(batch)
        wave = result.waveform.copy()
        self._wave(wave)
        return replace(result, waveform=wave)


def nothing(values: F32) -> None:
    pass


def one_bad_frame(mel: F32) -> None:
    mel[-1, 40] *= 1.05


def not_a_number(values: F32) -> None:
    values[0, 3] = np.nan


def transient_then_silence(wave: F32) -> None:
    wave[:, 960:] = 0


def leak_between_rows(mel: F32) -> None:
    if len(mel) > 1:
        mel[0] += 0.1 * mel[1]


def test_onnx_passes_the_gate(torch: TorchRuntime) -> None:
    report = validate(OnnxRuntime(checkpoint(), threads=1), torch, precision="fp32")
    assert report.passed, str(report)
    assert report.frame_error > 0


@pytest.mark.parametrize(
    ("mel", "wave"),
    [
        (one_bad_frame, nothing),
        (leak_between_rows, nothing),
        (not_a_number, nothing),
        (nothing, not_a_number),
        (nothing, transient_then_silence),
    ],
)
def test_faults_do_not_pass_even_in_half_precision(
    torch: TorchRuntime, mel: Callable[[F32], None], wave: Callable[[F32], None]
) -> None:
    assert not validate(Faulty(torch, mel, wave), torch, precision="fp16").passed


def unavailable() -> Runtime:
    raise CudaUnavailable("no driver")


def out_of_memory() -> Runtime:
    raise RuntimeError("CUDA failure 2: out of memory")


def test_refused_runtimes_fall_back_loudly(torch: TorchRuntime, caplog: pytest.LogCaptureFixture) -> None:
    refusals: list[str] = []
    chosen = select_first_valid(
        [
            Candidate("tensorrt", unavailable, lambda: torch),
            Candidate("onnx", out_of_memory, lambda: torch),
            Candidate("broken", lambda: Faulty(torch, nothing, transient_then_silence), lambda: torch),
            Candidate("torch", lambda: torch),
        ],
        on_refusal=lambda name, why: refusals.append(f"{name}: {why}"),
    )
    assert chosen is torch
    assert refusals[0] == "tensorrt: cannot be used: no driver"
    assert refusals[1] == "onnx: cannot be used: RuntimeError: CUDA failure 2: out of memory"
    assert refusals[2].startswith("broken: failed its parity check")
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "ERROR"]


def test_strict_refuses_to_start(torch: TorchRuntime) -> None:
    candidates = [Candidate("tensorrt", unavailable, lambda: torch), Candidate("torch", lambda: torch)]
    with pytest.raises(RuntimeRefused, match="tensorrt cannot be used: no driver"):
        select_first_valid(candidates, strict=True)
    with pytest.raises(RuntimeRefused, match="no S3Gen runtime is left"):
        select_first_valid(candidates[:1])


def test_wrong_configuration_is_not_hidden_by_falling_back(torch: TorchRuntime) -> None:
    def misconfigured() -> Runtime:
        raise InvalidInput("providers", "providers is cpv; it must be one of tensorrt, cuda, cpu.")

    with pytest.raises(InvalidInput, match="cpv"):
        select_first_valid([Candidate("onnx", misconfigured), Candidate("torch", lambda: torch)])


def test_gpu_gate_reaches_every_bucket_of_the_engines() -> None:
    for graph, per_token in ((ENCODER, 1), (CFM, 2), (VOCODER, 2)):
        reached = set()
        for rows in (*GPU_COMPOSITIONS, *LARGEST_COMPOSITIONS):
            length = per_token * max(rows) if graph is not VOCODER else min(2 * max(rows), _MAX_VOCODER_FRAMES)
            reached.add(choose_profile(buckets(graph), min(len(rows), max_rows(buckets(graph), length)), length))
        assert reached == set(range(len(buckets(graph)))), graph.name


def test_gpu_check_replays_graphs_of_every_number_of_rows() -> None:
    captured = {(sizes["batch"], sizes["tokens"]) for sizes in graph_sizes(ENCODER)}
    replayed = {on_grid(ENCODER, len(rows), max(rows)) for rows in GPU_COMPOSITIONS} & captured
    assert {rows for rows, _ in replayed} == {rows for rows, _ in captured}
