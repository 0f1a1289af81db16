"""Checks an installed server wheel: `python tools/check_wheel.py`, in an environment with the wheel and what
cibuildwheel installs for it.

The build of the kernels is optional where the server is installed from sources, so a wheel could come without them.
Here they must be inside and compute what numpy computes, for every instruction set of this machine. Raises SystemExit.
"""

from __future__ import annotations

import sys
from importlib import metadata, resources

import numpy as np

from engines.kernels.dense import DenseLayer
from engines.kernels.library import library, simd_widths

MODEL = ("t3_tiny_v1.safetensors", "s3gen_meanflow.safetensors", "ve.safetensors", "conds.pt", "alder.pt")
ROWS, DEPTH, OUTPUTS = 5, 96, 70
MAX_ERROR = 1e-4  # of sums of 96 products of numbers around 1


def main() -> None:
    if library() is None:
        sys.exit("The wheel has no compiled kernels.")
    errors = {width: _error(width) for width in simd_widths()}
    if not all(error < MAX_ERROR for error in errors.values()):
        sys.exit(f"The kernels disagree with numpy, by their vectors' width: {errors}.")
    folder = resources.files("engines") / "embedded/tiny"
    missing = [name for name in MODEL if not (folder / name).is_file()]
    if missing:
        sys.exit(f"The wheel has no {', '.join(missing)}.")
    version = metadata.version("mynah-speech-server")
    print(f"mynah-speech-server {version}: kernels of {len(errors)} instruction sets, the model tiny")


def _error(simd_width: int) -> float:
    """The largest difference between a dense layer of the kernels and numpy's."""
    draw = np.random.default_rng(1)
    x = draw.standard_normal((ROWS, DEPTH), np.float32)
    weight, bias = draw.standard_normal((DEPTH, OUTPUTS), np.float32), draw.standard_normal(OUTPUTS, np.float32)
    layer = DenseLayer(weight, bias, 1, weights="float32", pool="check", simd_width=simd_width)
    out, work = np.zeros((ROWS, layer.width), np.float32), np.zeros(layer.work_floats(ROWS), np.float32)
    layer.run(x.ctypes.data, ROWS, out.ctypes.data, work.ctypes.data)
    return float(np.abs(out[:, :OUTPUTS] - (x @ weight + bias)).max())


if __name__ == "__main__":
    main()
