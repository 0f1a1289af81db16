"""Faults after which a process can no longer use its GPU: which errors they are, and how the engine reports them.

CUDA reports an illegal address, a failed launch or a memory error to every later call of the process. Nothing repairs
that but a new process.
"""

from __future__ import annotations

import re

from engines.errors import EngineFailure

# cudaError_t: an uncorrectable memory error (214), then faults of a running kernel and a context that is gone
STICKY_STATUSES = {
    214: "cudaErrorECCUncorrectable",
    220: "cudaErrorNvlinkUncorrectable",
    226: "cudaErrorContained",
    700: "cudaErrorIllegalAddress",
    702: "cudaErrorLaunchTimeout",
    709: "cudaErrorContextIsDestroyed",
    710: "cudaErrorAssert",
    714: "cudaErrorHardwareStackError",
    715: "cudaErrorIllegalInstruction",
    716: "cudaErrorMisalignedAddress",
    717: "cudaErrorInvalidAddressSpace",
    718: "cudaErrorInvalidPc",
    719: "cudaErrorLaunchFailure",
    721: "cudaErrorTensorMemoryLeak",
    999: "cudaErrorUnknown",
}
# The same in the words of torch, TensorRT and vLLM, whose exceptions have no status
_STICKY_TEXT = re.compile(
    "|".join(
        (
            *STICKY_STATUSES.values(),
            "an illegal memory access was encountered",
            "unspecified launch failure",
            "uncorrectable ECC error",
            "uncorrectable NVLink error",
            "device-side assert triggered",
            "illegal instruction was encountered",
            "misaligned address",
            "operation not supported on global/shared address space",
            "invalid program counter",
            "hardware stack error",
            "the launch timed out and was terminated",
            "context is destroyed",
            "CUDA error: unknown error",
        )
    )
)


class DeviceLost(EngineFailure):
    """The GPU cannot be used by this process any more; only a new process can."""

    reason: str = "DEVICE_LOST"


def is_sticky(error: BaseException) -> bool:
    """Whether `error`, or what caused it, means that every later CUDA call of this process fails."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        status = getattr(at, "status", None)
        if isinstance(at, DeviceLost) or status in STICKY_STATUSES or _STICKY_TEXT.search(str(at)):
            return True
        at = at.__cause__ or at.__context__
    return False
