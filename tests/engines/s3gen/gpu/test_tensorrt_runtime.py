"""The TensorRT runtime refuses a machine without a GPU before it touches an engine, and cuts batches to its buckets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engines.errors import EngineFailure
from engines.s3gen.export.export import ExportSettings, export
from engines.s3gen.export.graphs import CFM, ENCODER, VOCODER, Port
from engines.s3gen.gpu.buckets import buckets, capacities, choose_profile, max_rows
from engines.s3gen.gpu.buffered import Lane
from engines.s3gen.gpu.build import ENGINE_GRAPHS, BuildSettings, build_engines, engine_folder, identity
from engines.s3gen.gpu.cuda import CudaDevice, CudaUnavailable, probe
from engines.s3gen.gpu.double_buffer import DoubleBuffer, Sizes
from engines.s3gen.gpu.engine_file import EngineFileRefused, write_engine
from engines.s3gen.gpu.tensorrt import TensorRTRuntime, find_engines
from engines.s3gen.gpu.trt import TensorRT, load_tensorrt
from engines.s3gen.parity_check import validate
from engines.s3gen.runtimes.torch import TorchRuntime
from tests.engines.s3gen.gpu.test_double_buffer import has_gpu, simulated
from tests.engines.s3gen.onnx_setting import checkpoint, tiny_export


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
def test_without_a_gpu_it_is_a_clear_error_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(CudaUnavailable, match="--s3gen onnx or torch"):
        TensorRTRuntime(checkpoint(), cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_flavour_whose_engines_are_there_is_taken(tmp_path: Path) -> None:
    """An image that was built without a GPU holds TensorRT-RTX's engines beside an installed standard TensorRT."""
    made, settings = tiny_export(), BuildSettings()
    standard = TensorRT("tensorrt", SimpleNamespace(__version__="10.13.3.9"))
    portable = TensorRT("tensorrt_rtx", SimpleNamespace(__version__="1.7.1.116"))
    both = [standard, portable]
    with pytest.raises(EngineFileRefused, match=r"no engine for encoder.*--model nano"):
        find_engines(made, tmp_path, settings, both, model="nano")
    for name in ENGINE_GRAPHS:
        write_engine(tmp_path, identity(made, name, settings, portable), b"program")
    assert find_engines(made, tmp_path, settings, both, model="nano")[0] is portable
    with pytest.raises(EngineFileRefused, match=r"tensorrt 10\.13"):
        find_engines(made, tmp_path, settings, [standard], model="nano")
    for name in ENGINE_GRAPHS:
        write_engine(tmp_path, identity(made, name, settings, standard), b"program")
    assert find_engines(made, tmp_path, settings, both, model="nano")[0] is standard


def test_smallest_fitting_profile_is_chosen() -> None:
    profiles = buckets(ENCODER)
    chosen = {
        (batch, length): profiles[choose_profile(profiles, batch, length)]
        for batch, length in [(1, 300), (8, 300), (1, 900)]
    }
    assert chosen[1, 300].batch[2] == 2
    assert chosen[8, 300].batch[2] == 16
    assert chosen[1, 900].length[2] >= 900
    assert chosen[8, 300].length[2] < profiles[choose_profile(profiles, 8, 407)].length[2]
    with pytest.raises(EngineFailure, match="2 rows of length 900"):
        choose_profile(profiles, 2, 900)
    with pytest.raises(EngineFailure, match="5000"):
        max_rows(profiles, 5000)


def test_flow_buckets_of_encoder_and_cfm_are_the_same_windows() -> None:
    for tokens, frames in zip(buckets(ENCODER), buckets(CFM), strict=True):
        assert frames.batch == tokens.batch
        assert frames.length == tuple(2 * length for length in tokens.length)


class _Passing:
    """Gives the vocoder's noise back as its waveform."""

    inputs, outputs, inner = VOCODER.inputs, (Port("waveform", ("batch", "samples")),), ()
    unpadded = False

    def __init__(self, device: CudaDevice) -> None:
        self.device, self.sizes = device, list[tuple[int, int]]()

    def enqueue(self, stream: int, addresses: Mapping[str, int], sizes: Sizes, *, full: bool = False) -> None:
        assert not full
        self.sizes.append((sizes["batch"], sizes["frames"]))
        count = 4 * sizes["batch"] * sizes["samples"]
        self.device.copy_on(addresses["waveform"], addresses["noise"], count, stream)

    def capture(self, *_: object) -> None:
        return None


@pytest.mark.parametrize(
    ("rows", "frames", "calls"),
    [(3, 500, [(1, 512)] * 3), (17, 200, [(16, 208), (1, 208)]), (3, 200, [(4, 208)]), (5, 200, [(5, 208)])],
)
def test_batch_is_cut_to_what_a_call_holds_and_joined_in_order(
    rows: int, frames: int, calls: list[tuple[int, int]]
) -> None:
    device, _ = simulated()
    kernel = _Passing(device)
    lane = Lane(VOCODER, DoubleBuffer(device, kernel, capacities(VOCODER)))
    sizes = VOCODER.sizes(rows, frames)
    arrays = {port.name: np.zeros(port.shape(sizes), port.dtype) for port in VOCODER.inputs}
    arrays["noise"] = np.arange(rows, dtype=np.float32)[:, None] * np.ones((1, sizes["samples"]), np.float32)
    np.testing.assert_array_equal(lane.submit(arrays, rows, frames)()["waveform"], arrays["noise"])
    assert kernel.sizes == calls


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_pass_the_gate_on_this_gpu(tmp_path: Path, precision: str) -> None:
    trt = load_tensorrt()
    made = export(checkpoint(), ExportSettings(("encoder", "cfm", "vocoder"), True, precision, 2), cache_dir=tmp_path)
    build_engines(made, engine_folder(tmp_path), BuildSettings(probe().architecture, gpu=probe().name), trt)
    runtime = TensorRTRuntime(checkpoint(), cache_dir=tmp_path, precision=precision)
    report = validate(runtime, TorchRuntime(checkpoint()), precision=precision)
    assert report.passed, str(report)
