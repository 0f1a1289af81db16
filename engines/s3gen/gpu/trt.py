"""The import of TensorRT: `tensorrt` if it is installed, else `tensorrt_rtx`, which has the same API."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engines.errors import EngineError

_MODULES = ("tensorrt", "tensorrt_rtx")
_ARCHITECTURE = re.compile(r"sm\d{2,3}")
# the architectures that TensorRT-RTX can build for, and its names of them; standard TensorRT builds for its own GPU
RTX_ARCHITECTURES = {
    "sm75": "SM75", "sm80": "SM80", "sm86": "SM86", "sm89": "SM89", "sm120": "SM120", "sm121": "SM121",
}  # fmt: skip


def architecture(name: str) -> str:
    """Returns `name` if it names a GPU's architecture, e.g. sm86 or sm90. Raises ValueError."""
    if _ARCHITECTURE.fullmatch(name) is None:
        raise ValueError(f"architecture is {name!r}; it must be sm and the compute capability's digits, e.g. sm86")
    return name


class TensorRTMissing(EngineError):
    """Neither flavour of TensorRT is installed."""

    reason: str = "TENSORRT_MISSING"


@dataclass(frozen=True)
class TensorRT:
    """One flavour's module, name (tensorrt or tensorrt_rtx) and version, which identify its engines."""

    name: str
    module: Any

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    @property
    def portable(self) -> bool:
        """Whether it can build for a GPU that is not in this machine."""
        return self.name == "tensorrt_rtx"


def load_tensorrt(prefer: str | None = None) -> TensorRT:
    """Standard TensorRT first, or only the flavour that `prefer` names. Raises TensorRTMissing."""
    return next(installed_flavours(prefer))


def installed_flavours(prefer: str | None = None) -> Iterator[TensorRT]:
    """The installed flavours in order of preference, each imported when it is asked for. Raises TensorRTMissing."""
    names = (prefer,) if prefer else _MODULES
    any_installed = False
    for name in names:
        try:
            flavour = TensorRT(name, importlib.import_module(name))
        except ImportError:
            continue
        any_installed = True
        yield flavour
    if any_installed:
        return
    raise TensorRTMissing(
        f"none of {', '.join(names)} is installed: pip install tensorrt-cu12 on the GPU machine, or "
        "tensorrt-rtx-cu12 to build engines on a machine without a GPU"
    )
