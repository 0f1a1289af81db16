"""Tests of ONNX Runtime sessions: exactly the requested providers and options, or an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.errors import InvalidInput
from engines.onnx.session import ProviderMissing, SessionSettings, open_session, provider_list

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
    assert cuda == ("CUDAExecutionProvider", {"device_id": "1"})
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
