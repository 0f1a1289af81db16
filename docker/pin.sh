#!/usr/bin/env bash
# pin.sh: writes into the Dockerfile the digests that the registry has now for the tags of its base image and of its
# syntax, for all architectures. Needs docker with buildx, and the registry. Run it to take up the base's updates.
# pin.sh --check: fails unless both have a digest. A release builds from nothing else.
# pin.sh --print: both as they stand there.
# DOCKERFILE: another file than the Dockerfile beside this folder.
set -euo pipefail
file=${DOCKERFILE:-$(dirname "$0")/../Dockerfile}
mapfile -t images < <(sed -n 's/^# syntax=//p; s/^ARG PYTHON_IMAGE=//p' "$file")
if [ ${#images[@]} != 2 ]; then
  echo "pin.sh: $file must name two images, in '# syntax=' and 'ARG PYTHON_IMAGE='" >&2
  exit 2
fi
case ${1:-} in
  --print)
    printf '%s\n' "${images[@]}"
    ;;
  --check)
    for image in "${images[@]}"; do
      if ! [[ $image =~ ^[^@[:space:]]+:[^@[:space:]]+@sha256:[0-9a-f]{64}$ ]]; then
        echo "pin.sh: the image $image has no digest; run docker/pin.sh where the registry can be reached, and commit" >&2
        exit 1
      fi
    done
    ;;
  "")
    pinned=()
    for image in "${images[@]}"; do
      tag=${image%%@*}
      digest=$(docker buildx imagetools inspect "$tag" --format '{{.Manifest.Digest}}')
      if ! [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
        echo "pin.sh: the registry answered with '$digest' for $tag, which is not a digest; try again" >&2
        exit 1
      fi
      pinned+=("$tag@$digest")
    done
    sed -i "s|^# syntax=.*|# syntax=${pinned[0]}|; s|^ARG PYTHON_IMAGE=.*|ARG PYTHON_IMAGE=${pinned[1]}|" "$file"
    ;;
  *)
    echo "pin.sh: unknown option $1; allowed: --check, --print" >&2
    exit 2
    ;;
esac
