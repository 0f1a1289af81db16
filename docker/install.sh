#!/usr/bin/env bash
# install.sh FLAVOUR VENV: what an image's Python is made of, from the lock file, every archive checked by its hash.
# Needs Python 3.11; run from the repository root. TORCH_BACKEND: where cpu's torch comes from, for uv (default cpu);
# "pip" takes whatever build of exactly that version pip finds, for machines that have one.
set -euo pipefail
flavour=$1 venv=$2
python3.11 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir uv==0.13.9
export UV_NO_CACHE=${UV_NO_CACHE:-1} UV_LINK_MODE=copy
install=("$venv/bin/uv" pip install --quiet --python "$venv/bin/python")
case $flavour in
  cpu)
    if [ "${TORCH_BACKEND:=cpu}" = pip ]; then
      "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps torch==2.13.0
    else
      "${install[@]}" --no-deps --torch-backend "$TORCH_BACKEND" torch==2.13.0
    fi
    ;;
  gpu) ;;
  *)
    echo "install.sh: flavour $flavour is neither cpu nor gpu" >&2
    exit 2
    ;;
esac
"${install[@]}" --no-deps --require-hashes -r "docker/locks/$flavour.txt"
"${install[@]}" --no-deps --no-build-isolation .
"$venv/bin/uv" pip uninstall --quiet --python "$venv/bin/python" uv pip
find "$venv" -depth \( -name __pycache__ -o -name tests -path '*/numpy/*' \) -exec rm -rf {} +
"$venv/bin/python" -m compileall -q -j 0 -x py312_intrinsics "$venv/lib"
