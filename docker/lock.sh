#!/usr/bin/env bash
# lock.sh: writes the images' lock files from pyproject.toml; `lock.sh --check` fails if one is stale.
# FLAVOUR.txt is what every image of the flavour has, FLAVOUR+ADD.txt what the build argument ADD puts on top of it.
# Run it from the repository root with uv on the PATH. A version stays until its line is removed or --upgrade is given.
set -euo pipefail
locks=docker/locks
names=(cpu gpu cpu+ray gpu+ray) # a flavour before what is added to it

compile() { # NAME FOLDER [uv arguments]: writes FOLDER/NAME.txt
  local name=$1 folder=$2 flavour=${1%%+*} inputs=("$locks/${1%%+*}.in") extras=(--extra otel --extra s3 --extra lang-ja --extra lang-zh)
  shift 2
  case $flavour in
    cpu) extras+=(--extra cpu --no-emit-package torch) ;;
    gpu) extras+=(--extra gpu --extra trt) ;;
  esac
  if [ "$name" != "$flavour" ]; then
    mapfile -t there < <(sed -n 's/^\([a-z0-9][a-z0-9._-]*\)==.*/--no-emit-package=\1/p' "$locks/$flavour.txt")
    inputs+=("$locks/${name#*+}.in")
    extras+=(--extra "${name#*+}" --constraint "$locks/$flavour.txt" "${there[@]}")
  fi
  uv --config-file "$locks/uv.toml" pip compile --quiet --generate-hashes --no-header --no-emit-index-url \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 --override "$locks/$flavour.override" \
    --no-emit-package mynah-speech "${extras[@]}" "$@" -o "$folder/$name.txt" pyproject.toml "${inputs[@]}"
  # the list of what the flavour's file has
  [ "$name" = "$flavour" ] || sed -i '/^# The following packages were excluded/,$d' "$folder/$name.txt"
}

if [ "${1:-}" != --check ]; then
  for name in "${names[@]}"; do compile "$name" "$locks" "$@"; done
  exit
fi
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
for name in "${names[@]}"; do # at once: they mostly wait for the index
  cp "$locks/$name.txt" "$fresh/$name.txt" # so that locked versions stay where they still satisfy
  compile "$name" "$fresh" || touch "$fresh/failed" &
done
wait
[ ! -e "$fresh/failed" ] || { echo "lock.sh: the requirements could not be resolved, see above" >&2; exit 1; }
for name in "${names[@]}"; do
  # uv does not write the output's path, so the files can be compared as they are
  diff -u "$locks/$name.txt" "$fresh/$name.txt" > "$fresh/diff" || {
    head -n 40 "$fresh/diff"
    echo "docker/locks/$name.txt is stale: run docker/lock.sh" >&2
    exit 1
  }
done
