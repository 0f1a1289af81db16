#!/usr/bin/env bash
# install.sh FLAVOUR VENV: what an image's Python is made of, from the lock file, every archive checked by its hash.
# Needs Python 3.11; run from the repository root. TORCH_BACKEND: where cpu's torch comes from, for uv (default cpu);
# "pip" takes whatever build of exactly that version pip finds, for machines that have one. TENSORRT=no leaves the gpu
# flavour without tensorrt-cu12, to try the rest where pypi.nvidia.com cannot be reached; S3Gen then has no TensorRT.
set -euo pipefail
flavour=$1 venv=$2
python3.11 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir uv==0.13.9
export UV_NO_CACHE=${UV_NO_CACHE:-1} UV_LINK_MODE=copy
install=("$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps)

locked() { # installs what the flavour's lock file pins, of those packages that awk's CONDITION on `name` takes
  awk -F '==' "/^[a-z0-9]/ { name = \$1; take = ($1) } take" "docker/locks/$flavour.txt" |
    "${install[@]}" --require-hashes -r -
}

torch_for_cpu() {
  if [ "${TORCH_BACKEND:=cpu}" = pip ]; then
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps torch==2.13.0
  else
    "${install[@]}" --torch-backend "$TORCH_BACKEND" torch==2.13.0
  fi
}

tensorrt() { # first, because it is what fails where a network is closed, and everything else is gigabytes
  if locked 'name ~ /^tensorrt-cu12/'; then return; fi
  echo "install.sh: tensorrt-cu12's archives on the index are placeholders that fetch the libraries from" >&2
  echo "https://pypi.nvidia.com while they are built; let the build reach that host, or set TENSORRT=no" >&2
  exit 4
}

case $flavour in
  cpu)
    torch_for_cpu
    locked 1
    ;;
  gpu)
    [ "${TENSORRT:=yes}" = no ] || tensorrt
    locked 'name !~ /^tensorrt-cu12/'
    ;;
  *)
    echo "install.sh: flavour $flavour is neither cpu nor gpu" >&2
    exit 2
    ;;
esac
"${install[@]}" --no-build-isolation .
"$venv/bin/uv" pip uninstall --quiet --python "$venv/bin/python" uv pip
find "$venv" -depth -name __pycache__ -exec rm -rf {} + # nothing else: numpy.testing, and so scipy, imports numpy's tests
"$venv/bin/python" -m compileall -q -j 0 -x py312_intrinsics "$venv/lib"
