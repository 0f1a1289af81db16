#!/usr/bin/env bash
# sbom.sh VENV FILE: writes an environment's bill of materials as CycloneDX JSON, with a tool outside the environment.
set -euo pipefail
venv=$1 file=$2
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
python3.11 -m venv "$tool"
"$tool/bin/pip" install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
mkdir -p "$(dirname "$file")"
"$tool/bin/cyclonedx-py" environment --output-reproducible --of JSON -o "$file" "$venv/bin/python"
