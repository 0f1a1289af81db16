"""What the data sheets say of the GPUs that a plan can be made for, and what an hour of them costs."""

from __future__ import annotations

from dataclasses import dataclass

PRICES_DATE = "2025-06"


@dataclass(frozen=True)
class Gpu:
    """A GPU. Speeds are the data sheet's: dense, without sparsity; `fp16_tflops` with sums in fp32.

    usd_per_hour  of one GPU in `instance`, on demand, in the cheapest large region, at PRICES_DATE
    """

    name: str
    fp16_tflops: float
    fp32_tflops: float  # without tensor cores: TF32 is off
    gb_per_s: float
    memory_gb: float
    source: str
    instance: str
    usd_per_hour: float


GPUS = {
    "a10g": Gpu("A10G", 70, 35, 600, 24, "NVIDIA A10G data sheet", "g5.xlarge", 1.006),
    "l4": Gpu("L4", 121, 30.3, 300, 24, "NVIDIA L4 data sheet, half of the sparse figure", "g6.xlarge", 0.805),
    "l40s": Gpu("L40S", 362, 91.6, 864, 48, "NVIDIA L40S data sheet", "g6e.xlarge", 1.861),
    "h100": Gpu(
        "H100", 989, 67, 3350, 80, "NVIDIA H100 data sheet, SXM, half of the sparse figure", "p5.4xlarge", 6.88
    ),
    "h200": Gpu(
        "H200", 989, 67, 4800, 141, "NVIDIA H200 data sheet, SXM, half of the sparse figure", "p5en.48xlarge / 8", 7.912
    ),
}


def find_gpu(device_name: str) -> Gpu | None:
    """The GPU that a driver's device name means, "NVIDIA H100 80GB HBM3" for one; None if it is not in the table."""
    words = device_name.upper().replace("-", " ").split()
    return next((gpu for gpu in GPUS.values() if gpu.name in words), None)
