#!/usr/bin/env bash
# state.sh [ROOT]: the one folder the server writes to, owned by the image's user. A volume mounted over it takes its owner
# from it, and without a volume it is all that a user without rights may write to. ROOT stands before it (CI: a build folder).
set -euo pipefail
user=65532
install -d -o "$user" -g "$user" -m 0755 "${1:-}/var/lib/mynah"
