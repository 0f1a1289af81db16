#!/usr/bin/env bash
# check.sh VENV: the finished environment is whole, starts, and carries no build tools of its own.
set -euo pipefail
venv=$1
"$venv/bin/python" - <<'PYTHON'
from importlib import metadata

from packaging.requirements import Requirement

missing = []
for distribution in metadata.distributions():
    for line in distribution.requires or ():
        need = Requirement(line)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        if need.name.startswith("nvidia-") or need.name in ("cuda-toolkit", "cuda-bindings", "triton"):
            continue  # a CPU build of torch does not need what the index's build of that version asks for
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            missing.append(f"{distribution.name} needs {need}, which is not there")
            continue
        if not need.specifier.contains(version, prereleases=True):
            missing.append(f"{distribution.name} needs {need}, found {version}")
for tool in ("uv", "pip", "cmake", "ninja"):
    if any(d.name == tool for d in metadata.distributions()):
        missing.append(f"{tool} was left behind")
raise SystemExit("\n".join(missing) or 0)
PYTHON
"$venv/bin/mynah-serve" --help > /dev/null
"$venv/bin/mynah" --help > /dev/null
"$venv/bin/mynah-engines" --help > /dev/null 2>&1 # its usage goes to standard error
