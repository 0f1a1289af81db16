"""What the data sheets say of the GPUs that a plan can be made for, and what an hour of them costs.

Read in November 2026. Speeds and memory: NVIDIA's data sheets, as reproduced in these pages.

    A10G  baseten.co/blog/nvidia-a10-vs-a10g-for-ml-model-inference (AWS alone has it; NVIDIA's site has no page of it)
    L4    fp16 242 with sparsity and 300 GB/s: aiwiki.ai/wiki/nvidia_l4; fp32 30.3: topcpu.net, L4
    L40S  fp16 362.05 | 733 with sparsity, fp32 91.6, 864 GB/s: the data sheet's table at mullet.se, product 355414
    H100  SXM: fp16 1979 with sparsity, fp32 67, 3350 GB/s: archive-lib.hpctech.co.jp, nvidia-h100; half of it is dense
    H200  SXM: H100's arithmetic, 141 GB, 4.8 TB/s: aiwiki.ai/wiki/nvidia_h200

Prices: AWS's for Linux on demand in us-east-1 and us-west-2, in a list that was reviewed on 10 September 2026.
"""

from __future__ import annotations

from dataclasses import dataclass

PRICES_DATE = "2026-09"


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


_SXM = "NVIDIA {} data sheet, SXM, half of the sparse figure"
GPUS = {
    "a10g": Gpu("A10G", 70, 35, 600, 24, "NVIDIA A10G data sheet", "g5.xlarge", 1.006),
    "l4": Gpu("L4", 121, 30.3, 300, 24, "NVIDIA L4 data sheet, half of the sparse figure", "g6.xlarge", 0.8048),
    "l40s": Gpu("L40S", 362, 91.6, 864, 48, "NVIDIA L40S data sheet", "g6e.xlarge", 1.861),
    "h100": Gpu("H100", 989, 67, 3350, 80, _SXM.format("H100"), "p5.4xlarge", 6.88),
    "h200": Gpu("H200", 989, 67, 4800, 141, _SXM.format("H200"), "p5en.48xlarge / 8", 63.296 / 8),
}


def find_gpu(device_name: str) -> Gpu | None:
    """The GPU that a driver's device name means, "NVIDIA H100 80GB HBM3" for one; None if it is not in the table."""
    words = device_name.upper().replace("-", " ").split()
    return next((gpu for gpu in GPUS.values() if gpu.name in words), None)
