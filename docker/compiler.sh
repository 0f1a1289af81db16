#!/usr/bin/env bash
# compiler.sh: a C compiler. The builder compiles the kernels for CPUs with it; in the gpu image, where it is
# the one build tool, Triton compiles a launcher for each kernel on the node. Versions are not pinned: Debian removes
# superseded ones, so a pinned one would stop building in weeks.
# Needs root on Debian, because it installs; apt's lists and archives go to a scratch folder, so no cache is left in the
# image and none is taken from a machine that runs this. Ends with a compile: a gcc without libc's headers would fail on
# the node only, minutes after the start.
set -euo pipefail
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "compiler.sh: needs root on Debian (apt-get), as in the image" >&2
  exit 3
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/lists/partial" "$scratch/archives/partial"
chmod -R a+rX "$scratch" # apt fetches as a user without rights
apt=(apt-get -qq -y -o "Dir::State::lists=$scratch/lists" -o "Dir::Cache=$scratch/archives" -o "Dir::Cache::archives=.")
"${apt[@]}" update
"${apt[@]}" install --no-install-recommends gcc libc6-dev > /dev/null
printf '#include <stdlib.h>\nint launch(void) { return abs(-1); }\n' > "$scratch/launcher.c"
gcc -shared -fPIC -O3 "$scratch/launcher.c" -o "$scratch/launcher.so" # what Triton asks of it
