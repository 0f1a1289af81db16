"""ONNX Runtime sessions with exactly the requested providers and without spinning threads."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from engines.errors import EngineError, InvalidInput

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_ERRORS_ONLY = 3  # ONNX Runtime's log level


class ProviderMissing(EngineError):
    """ONNX Runtime did not load a requested provider. It would silently use the CPU instead."""

    reason: str = "ONNX_PROVIDER_MISSING"


@dataclass(frozen=True)
class SessionSettings:
    """The settings of a session.

    providers          tensorrt, cuda or cpu in order of preference; each must be available
    threads            intra-op threads of the CPU provider
    device_id          GPU of the other two
    engine_cache_dir   folder for the TensorRT provider's engines; None: it builds them at every start
    trt_fp16           let the TensorRT provider use fp16 where the graph says fp32
    profile_shapes     the TensorRT provider's smallest, usual and largest shapes of all inputs, in its own notation
                       ("name:1x2x3,..."); (): those that it meets
    """

    providers: tuple[str, ...]
    threads: int
    device_id: int = 0
    engine_cache_dir: Path | None = None
    trt_fp16: bool = False
    profile_shapes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.providers if name not in PROVIDERS]
        if unknown or not self.providers:
            value, allowed = repr(",".join(self.providers)), "a list of " + ", ".join(PROVIDERS)
            raise InvalidInput(
                "providers", f"providers is {value}; it must be {allowed}.", value=value, allowed=allowed
            )
        if self.threads < 1:
            message = f"threads is {self.threads}; it must be at least 1."
            raise InvalidInput("threads", message, "THREADS_OUT_OF_RANGE", value=self.threads, allowed="at least 1")


def open_session(model: Path | bytes, settings: SessionSettings) -> ort.InferenceSession:
    """Open a session on exactly the providers of `settings`. Raises ProviderMissing naming those that did not load."""
    available = ort.get_available_providers()
    _check_available([name for name in settings.providers if PROVIDERS[name] not in available], settings)
    _load_libraries(settings.providers)
    source = str(model) if isinstance(model, Path) else model
    session = ort.InferenceSession(source, session_options(settings), providers=provider_list(settings))
    active = session.get_providers()  # ONNX Runtime silently drops a provider whose library cannot be loaded
    _check_available([name for name in settings.providers if PROVIDERS[name] not in active], settings)
    return session


def _load_libraries(providers: Sequence[str]) -> None:
    """Load what the GPU providers link to from Python packages, where the dynamic linker does not look by itself."""
    if not {"cuda", "tensorrt"} & set(providers):
        return
    ort.preload_dlls()
    if "tensorrt" in providers:
        with contextlib.suppress(ImportError):  # installed for the whole system; if it is nowhere, the check says so
            importlib.import_module("tensorrt")


def session_options(settings: SessionSettings) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # A session that spins while it waits occupies cores: two sessions double each other's time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def provider_list(settings: SessionSettings) -> list[tuple[str, dict[str, str]]]:
    """Returns the `providers` argument of InferenceSession."""
    return [(PROVIDERS[name], _provider_options(name, settings)) for name in settings.providers]


def _provider_options(name: str, settings: SessionSettings) -> dict[str, str]:
    if name == "cpu":
        return {}
    options = {"device_id": str(settings.device_id)}
    if name == "cuda":
        # the exhaustive default searches for the fastest convolution at every new length
        options |= {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    if name == "tensorrt":
        options["trt_fp16_enable"] = str(settings.trt_fp16)
        for bound, shapes in zip(("min", "opt", "max"), settings.profile_shapes, strict=False):
            # without bounds it builds an engine anew, for a minute, at each length that it has not seen
            options[f"trt_profile_{bound}_shapes"] = shapes
        if settings.engine_cache_dir is not None:
            for kind in ("engine", "timing"):
                options |= {
                    f"trt_{kind}_cache_enable": "True",
                    f"trt_{kind}_cache_path": str(settings.engine_cache_dir),
                }
    return options


def _check_available(missing: Sequence[str], settings: SessionSettings) -> None:
    if missing:
        raise ProviderMissing(
            f"ONNX Runtime {ort.__version__} on this machine has no provider {', '.join(missing)} (requested: "
            f"{','.join(settings.providers)}): install onnxruntime-gpu with its CUDA libraries, or request only cpu."
        )


class BoundSession:
    """A session with bound inputs and outputs, which avoids copies.

    On the CPU, inputs are read in place and outputs come from the runtime's arena. An output OrtValue can be the next
    call's input without leaving its device. Not thread-safe.
    """

    def __init__(self, session: ort.InferenceSession, settings: SessionSettings) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._device = "cpu" if settings.providers == ("cpu",) else "cuda"
        self._device_id = settings.device_id

    def put(self, array: npt.NDArray[np.generic]) -> ort.OrtValue:
        """Returns `array` on the session's device. On the CPU it is a view: keep `array` unchanged until the call."""
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, self._device_id)

    def __call__(
        self, inputs: Mapping[str, ort.OrtValue], outputs: Mapping[str, ort.OrtValue] | None = None
    ) -> list[Any]:
        """Run once and return the outputs in the graph's order. `outputs` are preallocated values to write into."""
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            if outputs and name in outputs:
                binding.bind_ortvalue_output(name, outputs[name])
            else:
                binding.bind_output(name, self._device, self._device_id)
        self._session.run_with_iobinding(binding)
        results: list[Any] = binding.get_outputs()
        return results
