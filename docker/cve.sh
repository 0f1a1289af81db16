#!/usr/bin/env bash
# cve.sh SBOM REPORT: writes the known vulnerabilities of what a bill of materials lists, as grype's JSON, and prints
# them as a table. Those that docker/vllm.openvex.json says do not apply are left out. Fails if one is critical.
# Needs grype and its database.
set -euo pipefail
sbom=$1 report=$2 vex=$(dirname "$0")/vllm.openvex.json
command -v grype > /dev/null || { echo "cve.sh: grype is not installed; see its project's page" >&2; exit 3; }
grype "sbom:$sbom" --vex "$vex" --output table --output "json=$report" --fail-on critical
