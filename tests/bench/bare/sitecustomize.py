"""On PYTHONPATH: Python as on a machine that has torch, what torch needs, and nothing else."""

import importlib.abc
import sys

# torch with numpy; what they import where it is installed
ALLOWED = {
    "torch", "torchgen", "functorch", "numpy", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2",
    "markupsafe",
    "filelock", "fsspec", "setuptools", "triton", "nvidia",
    # the two that read checkpoints: both small, without dependencies
    "safetensors", "tokenizers",
    "bench", "engines", "tests",
}  # fmt: skip
BEGINNINGS = ("_", "nvidia_")


class Bare(importlib.abc.MetaPathFinder):
    """Finds what another finder finds, but no package from a registry that is not allowed."""

    def __init__(self, finder):  # type: ignore[no-untyped-def]
        self._finder = finder

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        top = name.partition(".")[0]
        if top in ALLOWED | sys.stdlib_module_names or top.startswith(BEGINNINGS):
            return self._finder.find_spec(name, path, target)
        return None


sys.meta_path[:] = [Bare(finder) for finder in sys.meta_path]
