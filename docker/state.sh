#!/usr/bin/env bash
# state.sh [ROOT]: creates the folder that the server writes to, owned by the image's user. A volume mounted over it
# inherits this owner; without a volume it is the only writable folder besides /tmp. ROOT: a prefix, for CI.
set -euo pipefail
user=65532
install -d -o "$user" -g "$user" -m 0755 "${1:-}/var/lib/mynah"
