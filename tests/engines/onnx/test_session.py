"""Tests of ONNX Runtime sessions: exactly the requested providers and options, or an error."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.errors import InvalidInput
from engines.onnx import session
from engines.onnx.session import PROVIDERS, ProviderMissing, SessionSettings, open_session, provider_list
from engines.s3gen.export.graphs import ENCODER, VOCODER
from engines.s3gen.runtimes.onnx import profile_shapes

IDENTITY = Path(__file__)  # never read: providers are looked at first


def test_tensorrts_provider_keeps_its_engines_and_uses_fp16_only_if_allowed(tmp_path: Path) -> None:
    settings = SessionSettings(("tensorrt", "cuda", "cpu"), 2, device_id=1, engine_cache_dir=tmp_path, trt_fp16=True)
    (name, options), cuda, cpu = provider_list(settings)
    assert name == "TensorrtExecutionProvider"
    assert options == {
        "device_id": "1",
        "trt_fp16_enable": "True",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(tmp_path),
    }
    assert (cuda[0], cuda[1]["device_id"]) == ("CUDAExecutionProvider", "1")
    assert cpu == ("CPUExecutionProvider", {})
    (_, plain), *_ = provider_list(SessionSettings(("tensorrt",), 2))
    assert plain == {"device_id": "0", "trt_fp16_enable": "False"}


@pytest.mark.parametrize("providers", [("cuda",), ("cuda", "cpu"), ("tensorrt", "cpu")])
def test_missing_provider_is_never_replaced(providers: tuple[str, ...]) -> None:
    with pytest.raises(ProviderMissing, match=f"no provider {providers[0]}"):
        open_session(IDENTITY, SessionSettings(providers, 1))


def test_unknown_provider_is_named() -> None:
    with pytest.raises(InvalidInput, match="cpv"):
        SessionSettings(("cpv",), 1)


@pytest.mark.parametrize(
    ("providers", "loaded"),
    [(("cpu",), []), (("cuda", "cpu"), ["CUDA"]), (("tensorrt", "cuda"), ["CUDA", "tensorrt"])],
)
def test_libraries_of_gpu_providers_are_loaded_before_a_session_opens(
    providers: tuple[str, ...], loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's and TensorRT's libraries are Python packages, which the dynamic linker does not find."""
    calls: list[str] = []
    names = [PROVIDERS[name] for name in providers]

    def opened(*_: object, **__: object) -> SimpleNamespace:
        calls.append("session")
        return SimpleNamespace(get_providers=lambda: names)

    monkeypatch.setattr(session.ort, "get_available_providers", lambda: names)
    monkeypatch.setattr(session.ort, "preload_dlls", lambda: calls.append("CUDA"))
    monkeypatch.setattr(session.ort, "InferenceSession", opened)
    monkeypatch.setattr(session, "importlib", SimpleNamespace(import_module=calls.append))
    open_session(IDENTITY, SessionSettings(providers, 1))
    assert calls == [*loaded, "session"]


def test_the_gpu_images_onnxruntime_is_the_one_with_gpu_providers_and_the_only_one() -> None:
    """Both packages are the same module, so that the one installed last would win."""
    locks = Path(__file__).parents[3] / "docker" / "locks"
    packages = {
        name: [line.partition("==")[0] for line in (locks / f"{name}.txt").read_text().splitlines() if "==" in line]
        for name in ("cpu", "gpu")
    }
    assert [p for p in packages["gpu"] if p.startswith("onnxruntime")] == ["onnxruntime-gpu"]
    assert [p for p in packages["cpu"] if p.startswith("onnxruntime")] == ["onnxruntime"]


def test_cuda_provider_computes_in_full_float32_and_searches_no_convolutions() -> None:
    ((_, options),) = provider_list(SessionSettings(("cuda",), 2))
    assert (options["use_tf32"], options["cudnn_conv_algo_search"]) == ("0", "HEURISTIC")


def test_tensorrt_provider_knows_the_sizes_of_all_windows_in_advance() -> None:
    """Otherwise it builds engines while it serves."""
    shapes = profile_shapes(ENCODER)
    settings = SessionSettings(("tensorrt",), 2, profile_shapes=shapes)
    ((_, options),) = provider_list(settings)
    assert [options[f"trt_profile_{bound}_shapes"] for bound in ("min", "opt", "max")] == list(shapes)
    assert shapes[0].startswith("tokens:1x1,")
    assert shapes[2] == "tokens:16x512,token_lengths:16,x_vector:16x192"
    assert all(len(shape.split(",")) == len(VOCODER.inputs) for shape in profile_shapes(VOCODER))
