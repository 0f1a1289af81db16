"""The one place that imports TensorRT: `tensorrt` where it is installed, else `tensorrt_rtx` (same API, other name).

Knows which of the two is there and what to call its engines; knows no graph.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engines.errors import EngineError

_MODULES = ("tensorrt", "tensorrt_rtx")
# the architectures that we name, and TensorRT's names for them
ARCHITECTURES = {"sm75": "SM75", "sm80": "SM80", "sm86": "SM86", "sm89": "SM89", "sm120": "SM120"}


class TensorRTMissing(EngineError):
    """Neither flavour of TensorRT is installed."""

    reason: str = "TENSORRT_MISSING"


@dataclass(frozen=True)
class TensorRT:
    """The module and what tells its engines from others'. `name` is tensorrt or tensorrt_rtx."""

    name: str
    module: Any

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    @property
    def portable(self) -> bool:
        """Whether it builds for a GPU that is not in this machine."""
        return self.name == "tensorrt_rtx"


def load_tensorrt(prefer: str | None = None) -> TensorRT:
    """Standard TensorRT first, or only the flavour that `prefer` names. Raises TensorRTMissing."""
    return next(installed_flavours(prefer))


def installed_flavours(prefer: str | None = None) -> Iterator[TensorRT]:
    """Those that are here in order of preference, each imported when its turn comes. Raises TensorRTMissing."""
    names = (prefer,) if prefer else _MODULES
    found = False
    for name in names:
        try:
            flavour = TensorRT(name, importlib.import_module(name))
        except ImportError:
            continue
        found = True
        yield flavour
    if found:
        return
    raise TensorRTMissing(
        f"none of {', '.join(names)} is installed: pip install tensorrt-cu12 on the GPU machine, or "
        "tensorrt-rtx-cu12 to build engines on a machine without a GPU"
    )
