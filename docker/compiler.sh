#!/usr/bin/env bash
# compiler.sh: installs a C compiler. The builder compiles the CPU kernels with it; in the gpu image, whose only build
# tool it is, Triton compiles a launcher for each kernel on the node. Versions are not pinned, because Debian removes
# superseded ones within weeks.
# Needs root on Debian. apt's lists and archives go to a temporary folder, so the image keeps no cache and the machine
# that runs this lends none. Compiles a test file at the end: a gcc without libc's headers would otherwise fail on the
# node only, minutes after the start.
set -euo pipefail
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "compiler.sh: needs root on Debian (apt-get), as in the image" >&2
  exit 3
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/lists/partial" "$scratch/archives/partial"
chmod -R a+rX "$scratch" # apt downloads as an unprivileged user
apt=(apt-get -qq -y -o "Dir::State::lists=$scratch/lists" -o "Dir::Cache=$scratch/archives" -o "Dir::Cache::archives=.")
"${apt[@]}" update
"${apt[@]}" install --no-install-recommends gcc libc6-dev > /dev/null
printf '#include <stdlib.h>\nint launch(void) { return abs(-1); }\n' > "$scratch/launcher.c"
gcc -shared -fPIC -O3 "$scratch/launcher.c" -o "$scratch/launcher.so" # as Triton calls it
