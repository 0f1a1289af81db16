"""The TensorRT runtime refuses a machine without a GPU before it touches an engine, and cuts batches to its buckets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engines.errors import EngineFailure
from engines.s3gen.export.export import ExportSettings, export
from engines.s3gen.export.graphs import CFM, ENCODER, VOCODER, Port
from engines.s3gen.gpu.buckets import buckets, choose_profile, max_rows
from engines.s3gen.gpu.buffered import Lane
from engines.s3gen.gpu.build import ENGINE_GRAPHS, BuildSettings, build_engines, engine_folder, identity
from engines.s3gen.gpu.cuda import CudaUnavailable, probe
from engines.s3gen.gpu.double_buffer import DoubleBuffer
from engines.s3gen.gpu.engine_file import EngineFileRefused, write_engine
from engines.s3gen.gpu.tensorrt import TensorRTRuntime, find_engines
from engines.s3gen.gpu.trt import TensorRT, load_tensorrt
from engines.s3gen.parity_check import validate
from engines.s3gen.runtimes.torch import TorchRuntime
from tests.engines.s3gen.gpu.test_double_buffer import LazyDevice, has_gpu
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
    with pytest.raises(EngineFailure, match="3 rows of length 900"):
        choose_profile(profiles, 3, 900)
    with pytest.raises(EngineFailure, match="5000"):
        max_rows(profiles, 5000)


def test_flow_buckets_of_encoder_and_cfm_are_the_same_windows() -> None:
    for tokens, frames in zip(buckets(ENCODER), buckets(CFM), strict=True):
        assert frames.batch == tokens.batch
        assert frames.length == tuple(2 * length for length in tokens.length)


class _Passing:
    """Gives the vocoder's noise back as its waveform."""

    inputs, outputs, inner, capturable = VOCODER.inputs, (Port("waveform", ("batch", "samples")),), (), False

    def __init__(self, device: LazyDevice) -> None:
        self.device, self.rows = device, list[int]()

    def enqueue(self, stream: int, addresses: dict[str, int], sizes: dict[str, int]) -> None:
        self.rows.append(sizes["batch"])
        count, memory = 4 * sizes["batch"] * sizes["samples"], self.device.memory
        target, source = memory[addresses["waveform"]], memory[addresses["noise"]]
        self.device.work(stream, lambda: target[:count].__setitem__(slice(None), source[:count]))


def test_batch_too_large_for_its_length_is_cut_and_joined_in_order() -> None:
    device = LazyDevice(0)
    kernel = _Passing(device)
    lane = Lane(VOCODER, DoubleBuffer(device, kernel, [VOCODER.sizes(2, 200)]))
    sizes = VOCODER.sizes(5, 200)  # this long, a profile holds two rows
    arrays = {port.name: np.zeros(port.shape(sizes), port.dtype) for port in VOCODER.inputs}
    arrays["noise"] = np.arange(5, dtype=np.float32)[:, None] * np.ones((1, sizes["samples"]), np.float32)
    np.testing.assert_array_equal(lane.submit(arrays, 5, 200)()["waveform"], arrays["noise"])
    assert kernel.rows == [2, 2, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_pass_the_gate_on_this_gpu(tmp_path: Path, precision: str) -> None:
    trt = load_tensorrt()
    made = export(checkpoint(), ExportSettings(("encoder", "cfm", "vocoder"), True, precision, 2), cache_dir=tmp_path)
    build_engines(made, engine_folder(tmp_path), BuildSettings(probe().architecture), trt)
    runtime = TensorRTRuntime(checkpoint(), cache_dir=tmp_path, precision=precision)
    report = validate(runtime, TorchRuntime(checkpoint()), precision=precision)
    assert report.passed, str(report)
