#!/usr/bin/env bash
# install.sh FLAVOUR VENV: creates an image's Python environment from the lock file, with every archive's hash checked.
# Needs Python 3.11; run from the repository root. ADD: what the image has besides, "ray" or nothing. TORCH_BACKEND: uv's source of the cpu flavour's torch (default cpu);
# "pip" lets pip choose a build of that version. TENSORRT=no omits tensorrt-cu12 from the gpu flavour, to test the rest
# where pypi.nvidia.com cannot be reached; S3Gen then has no TensorRT.
set -euo pipefail
flavour=$1 venv=$2
python3.11 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir uv==0.13.9
export UV_NO_CACHE=${UV_NO_CACHE:-1} UV_LINK_MODE=copy
install=("$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps)

locked() { # LOCK CONDITION: installs the pinned packages of a lock file whose `name` meets the awk condition
  awk -F '==' "/^[a-z0-9]/ { name = \$1; take = ($2) } take" "docker/locks/$1.txt" |
    "${install[@]}" --require-hashes -r -
}

torch_for_cpu() {
  if [ "${TORCH_BACKEND:=cpu}" = pip ]; then
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps torch==2.13.0
  else
    "${install[@]}" --torch-backend "$TORCH_BACKEND" torch==2.13.0
  fi
}

tensorrt() { # first, because it fails on closed networks and the rest is gigabytes
  if locked gpu 'name ~ /^tensorrt-cu12/'; then return; fi
  echo "install.sh: the index's tensorrt-cu12 archives are placeholders that download the libraries from" >&2
  echo "https://pypi.nvidia.com when they are built; allow the build to reach that host, or set TENSORRT=no" >&2
  exit 4
}

for add in ${ADD:-}; do
  if ! [ -f "docker/locks/$flavour+$add.txt" ]; then
    echo "install.sh: ADD has $add, for which there is no docker/locks/$flavour+$add.txt; allowed: ray" >&2
    exit 2
  fi
done
case $flavour in
  cpu)
    torch_for_cpu
    locked cpu 1
    ;;
  gpu)
    [ "${TENSORRT:=yes}" = no ] || tensorrt
    locked gpu 'name !~ /^tensorrt-cu12/'
    ;;
  *)
    echo "install.sh: unknown flavour $flavour; allowed: cpu, gpu" >&2
    exit 2
    ;;
esac
for add in ${ADD:-}; do locked "$flavour+$add" 1; done
"${install[@]}" --no-build-isolation ./protos .
"$venv/bin/uv" pip uninstall --quiet --python "$venv/bin/python" uv pip
find "$venv" -depth -name __pycache__ -exec rm -rf {} + # not tests: scipy imports numpy.testing, which imports them
"$venv/bin/python" -m compileall -q -j 0 -x py312_intrinsics "$venv/lib"
