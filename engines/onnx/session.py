"""ONNX Runtime sessions as this project opens them: named providers that are really there, no spinning threads.

Knows onnxruntime; knows no graph. Imported only by the parts that run on ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from engines.errors import EngineError, invalid_value

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_ERRORS_ONLY = 3  # ONNX Runtime's log level


class ProviderMissing(EngineError):
    """ONNX Runtime has not taken a provider that was asked for; left alone it would have used the CPU silently."""

    reason: str = "ONNX_PROVIDER_MISSING"


@dataclass(frozen=True)
class SessionSettings:
    """providers       tensorrt | cuda | cpu, the preferred first; every one named must be there
    threads            intra-op threads of the CPU provider
    device_id          which GPU, for the other two
    engine_cache_dir   where the TensorRT provider keeps the engines it builds; None: it builds at every start
    trt_fp16           lets the TensorRT provider choose fp16 where the graph says fp32
    """

    providers: tuple[str, ...]
    threads: int
    device_id: int = 0
    engine_cache_dir: Path | None = None
    trt_fp16: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.providers if name not in PROVIDERS]
        if unknown or not self.providers:
            raise invalid_value("providers", ",".join(self.providers), "a list of " + ", ".join(PROVIDERS))
        if self.threads < 1:
            raise invalid_value("threads", self.threads, "at least 1", "THREADS_OUT_OF_RANGE")


def open_session(model: Path | bytes, settings: SessionSettings) -> ort.InferenceSession:
    """A session on exactly the providers of `settings`. Raises ProviderMissing naming those that did not load."""
    available = ort.get_available_providers()
    _assert_there([name for name in settings.providers if PROVIDERS[name] not in available], settings)
    source = str(model) if isinstance(model, Path) else model
    session = ort.InferenceSession(source, session_options(settings), providers=provider_list(settings))
    active = session.get_providers()  # a provider whose library cannot be loaded is dropped without an error
    _assert_there([name for name in settings.providers if PROVIDERS[name] not in active], settings)
    return session


def session_options(settings: SessionSettings) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # A session that spins while it waits takes the cores from the others: two of them double each other's time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def provider_list(settings: SessionSettings) -> list[tuple[str, dict[str, str]]]:
    """What InferenceSession takes: each provider with its options."""
    return [(PROVIDERS[name], _provider_options(name, settings)) for name in settings.providers]


def _provider_options(name: str, settings: SessionSettings) -> dict[str, str]:
    if name == "cpu":
        return {}
    options = {"device_id": str(settings.device_id)}
    if name == "tensorrt":
        options["trt_fp16_enable"] = str(settings.trt_fp16)
        if settings.engine_cache_dir is not None:
            for kind in ("engine", "timing"):
                options |= {
                    f"trt_{kind}_cache_enable": "True",
                    f"trt_{kind}_cache_path": str(settings.engine_cache_dir),
                }
    return options


def _assert_there(missing: Sequence[str], settings: SessionSettings) -> None:
    if missing:
        raise ProviderMissing(
            f"ONNX Runtime {ort.__version__} on this machine has no provider {', '.join(missing)} (asked for: "
            f"{','.join(settings.providers)}); install onnxruntime-gpu with its CUDA libraries, or name only cpu"
        )


class BoundSession:
    """A session whose inputs and outputs are bound, not copied into lists: arrays in, arrays or device values out.

    On the CPU inputs are read where they lie and outputs are written by the runtime's arena, which is reused. An
    output kept as an OrtValue can be the next call's input without leaving its device. One thread at a time.
    """

    def __init__(self, session: ort.InferenceSession, settings: SessionSettings) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._device = "cpu" if settings.providers == ("cpu",) else "cuda"
        self._device_id = settings.device_id

    def put(self, array: npt.NDArray[np.generic]) -> ort.OrtValue:
        """`array` on the session's device; on the CPU a view, so `array` must stay unchanged until it was used."""
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, self._device_id)

    def __call__(
        self, inputs: Mapping[str, ort.OrtValue], outputs: Mapping[str, ort.OrtValue] | None = None
    ) -> list[Any]:
        """Run once: output OrtValues in the graph's order. `outputs` names those to be written into given memory."""
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
