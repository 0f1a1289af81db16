"""What the GPU code calls exists under that name in the libraries that are installed here without a GPU.

cuda-python 12.9 is the one of the GPU image; TensorRT-RTX has the API of standard TensorRT 10.
"""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from engines.s3gen.gpu import build, cuda, tensorrt


def test_every_call_of_the_driver_layer_is_a_name_of_cuda_python() -> None:
    runtime = importlib.import_module("cuda.bindings.runtime")
    names = set(re.findall(r"\b(cuda[A-Z]\w+)", inspect.getsource(cuda)))
    names -= {name for name in names if name.startswith(("cudaError", "cudaMemcpyHost", "cudaMemcpyDevice"))}
    names -= {"cudaStreamCaptureModeThreadLocal"}  # of the enumeration, below
    assert len(names) > 20
    assert not {name for name in names if not hasattr(runtime, name)}
    assert runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal == 1
    kinds = [
        getattr(runtime.cudaMemcpyKind, f"cudaMemcpy{way}")
        for way in ("HostToDevice", "DeviceToHost", "DeviceToDevice")
    ]
    assert [int(kind) for kind in kinds] == [1, 2, 3]
    assert runtime.cudaError_t.cudaErrorIllegalAddress == 700


@pytest.mark.parametrize(
    ("module", "expression", "kind"),
    [
        (tensorrt, r"self\._engine\.(\w+)", "ICudaEngine"),
        (tensorrt, r"\bcontext\.(\w+)\(", "IExecutionContext"),
        (tensorrt, r"\bconfig\.(\w+)", "IRuntimeConfig"),
        (build, r"\bconfig\.(\w+)", "IBuilderConfig"),
        (build, r"\bbuilder\.(\w+)\(", "Builder"),
        (build, r"\bparser\.(\w+)", "OnnxParser"),
        (build, r"\bprofile\.(\w+)\(", "IOptimizationProfile"),
        (build, r"\bapi\.BuilderFlag\.(\w+)", "BuilderFlag"),
    ],
)
def test_every_call_of_tensorrt_is_a_name_of_its_api(module: object, expression: str, kind: str) -> None:
    api = importlib.import_module("tensorrt_rtx")
    names = set(re.findall(expression, inspect.getsource(module)))  # type: ignore[arg-type]
    assert names
    assert not {name for name in names if not hasattr(getattr(api, kind), name)}
