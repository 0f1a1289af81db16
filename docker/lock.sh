#!/usr/bin/env bash
# lock.sh: writes the images' lock files from pyproject.toml; `lock.sh --check` fails if one is stale.
# Run it from the repository root with uv on the PATH. A version stays until its line is removed or --upgrade is given.
set -euo pipefail
locks=docker/locks

compile() { # FLAVOUR OUTPUT [uv arguments]
  local flavour=$1 output=$2 extras=()
  shift 2
  case $flavour in
    cpu) extras=(--extra cpu --extra otel --extra s3 --no-emit-package torch) ;;
    gpu) extras=(--extra gpu --extra trt --extra otel --extra s3 --override "$locks/gpu.override") ;;
  esac
  uv --config-file "$locks/uv.toml" pip compile --quiet --generate-hashes --no-header --no-emit-index-url \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --no-emit-package mynah-speech "${extras[@]}" "$@" -o "$output" pyproject.toml "$locks/$flavour.in"
}

if [ "${1:-}" != --check ]; then
  for flavour in cpu gpu; do compile "$flavour" "$locks/$flavour.txt" "$@"; done
  exit
fi
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
for flavour in cpu gpu; do
  cp "$locks/$flavour.txt" "$fresh/$flavour.txt" # so that locked versions stay where they still satisfy
  compile "$flavour" "$fresh/$flavour.txt"
  # uv does not write the output's path, so the files can be compared as they are
  diff -u "$locks/$flavour.txt" "$fresh/$flavour.txt" > "$fresh/diff" || {
    head -n 40 "$fresh/diff"
    echo "docker/locks/$flavour.txt is stale: run docker/lock.sh" >&2
    exit 1
  }
done
