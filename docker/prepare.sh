#!/usr/bin/env bash
# prepare.sh FLAVOUR VENV WEIGHTS TARGET: copies a checkpoint to TARGET/weights and builds its TensorRT engines for SM
# 8.6 in TARGET/cache. The server writes to its cache folder, so a read-only image's cache must be copied to a volume first.
# If WEIGHTS has no checkpoint, the init container prepares both on the node.
set -euo pipefail
flavour=$1 venv=$2 weights=$3 target=$4
mkdir -p "$target/cache"
if ! compgen -G "$weights/t3_*_v1.safetensors" > /dev/null; then
  echo "prepare.sh: no checkpoint in $weights; the init container will prepare weights and engines on the node"
  exit
fi
cp -rL "$weights" "$target/weights"
build=(--engines none)
# TensorRT for RTX builds engines without a GPU
[ "$flavour" = gpu ] && build=(--engines sm86 --flavour tensorrt_rtx)
"$venv/bin/mynah-engines" prepare --model "$target/weights" --cache-dir "$target/cache" "${build[@]}"
