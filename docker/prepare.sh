#!/usr/bin/env bash
# prepare.sh FLAVOUR VENV WEIGHTS TARGET: copies a checkpoint into the image and builds its TensorRT engines for SM 8.6.
# TARGET/weights and TARGET/cache; the server writes beside what is in a cache folder, so a read-only image's is copied to
# a volume first. An empty WEIGHTS folder is fine: the node's init container then does all of it.
set -euo pipefail
flavour=$1 venv=$2 weights=$3 target=$4
mkdir -p "$target/cache"
if ! compgen -G "$weights/t3_*_v1.safetensors" > /dev/null; then
  echo "prepare.sh: no checkpoint in $weights; weights and engines will be made on the node"
  exit
fi
cp -rL "$weights" "$target/weights"
build=(--engines none)
# the flavour of TensorRT that needs no GPU to build for one
[ "$flavour" = gpu ] && build=(--engines sm86 --flavour tensorrt_rtx)
"$venv/bin/mynah-engines" prepare --model "$target/weights" --cache-dir "$target/cache" "${build[@]}"
