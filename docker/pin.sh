#!/usr/bin/env bash
# pin.sh: writes into docker/base-image the digest that its registry has for the base image's tag now, for all
# architectures. Needs docker with buildx, and the registry. Run it to take up the base's updates.
# pin.sh --check: fails unless docker/base-image has a digest. A release builds from nothing else.
# pin.sh --print: the base image as it stands there.
# PIN_FILE: another file than docker/base-image.
set -euo pipefail
file=${PIN_FILE:-$(dirname "$0")/base-image}
read -r image < "$file"
case ${1:-} in
  --print)
    echo "$image"
    ;;
  --check)
    if ! [[ $image =~ ^[^@[:space:]]+:[^@[:space:]]+@sha256:[0-9a-f]{64}$ ]]; then
      echo "pin.sh: the base image $image has no digest; run docker/pin.sh where the registry can be reached, and commit" >&2
      exit 1
    fi
    ;;
  "")
    tag=${image%%@*}
    digest=$(docker buildx imagetools inspect "$tag" --format '{{.Manifest.Digest}}')
    if ! [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
      echo "pin.sh: the registry answered with '$digest' for $tag, which is not a digest; try again" >&2
      exit 1
    fi
    echo "$tag@$digest" > "$file"
    ;;
  *)
    echo "pin.sh: unknown option $1; allowed: --check, --print" >&2
    exit 2
    ;;
esac
