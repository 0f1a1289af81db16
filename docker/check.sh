#!/usr/bin/env bash
# check.sh FLAVOUR VENV: the environment is complete, starts, and has no build tool that no package requires.
# ADD: as install.sh had it.
set -euo pipefail
flavour=$1 venv=$2 python=$(realpath -s "$2/bin/python")
"$venv/bin/python" - "$flavour" "${ADD:-}" <<'PYTHON'
import sys
from importlib import metadata

from packaging.requirements import Requirement

cpu, added = sys.argv[1] == "cpu", sys.argv[2].split()
extras = {
    "mynah-speech-server": [*(["cpu"] if cpu else ["gpu", "trt"]), "otel", "s3", "lang-ja", "lang-zh", *added],
    "mynah-speech": ["", *added],
    **({"ray": ["data", "default"]} if "ray" in added else {}),
}
missing, needed = [], set()
other = {"dicta-onnx": {"onnxruntime"}}  # asks for one old version; see cpu.override
same = {} if cpu else {"onnxruntime": "onnxruntime-gpu"}  # the GPU's build is the same module
for distribution in metadata.distributions():
    for line in distribution.requires or ():
        need = Requirement(line)
        wanted = extras.get(distribution.name, [""])
        if need.marker and not any(need.marker.evaluate({"extra": extra}) for extra in wanted):
            continue
        needed.add(need.name)
        if cpu and (need.name.startswith("nvidia-") or need.name in ("cuda-toolkit", "cuda-bindings", "triton")):
            continue  # the CPU build of torch does not need the requirements of the index's build
        try:
            version = metadata.version(same.get(need.name, need.name))
        except metadata.PackageNotFoundError:
            missing.append(f"{distribution.name} needs {need}, which is not installed")
            continue
        if need.name in other.get(distribution.name, ()):
            continue
        if not need.specifier.contains(version, prereleases=True):
            missing.append(f"{distribution.name} needs {need}, but {version} is installed")
for tool in ("uv", "pip", "cmake", "ninja"):
    if tool not in needed and any(d.name == tool for d in metadata.distributions()):
        missing.append(f"{tool} is still installed")
raise SystemExit("\n".join(missing) or 0)
PYTHON
cpu=(torch onnxruntime scipy.signal s3fs opentelemetry.exporter.otlp.proto.grpc.trace_exporter
  pykakasi spacy_pkuseg dicta_onnx engines.s3gen service)
gpu=("${cpu[@]}" cuda.bindings.runtime tensorrt_rtx vllm.v1.engine.llm_engine engines.t3.vllm.model engines.t3.vllm.worker)
declare -A of=([ray]="ray.data ray.dashboard.optional_deps mynah.batch.ray_run")
declare -n modules=$flavour
added=()
for add in ${ADD:-}; do read -r -a more <<< "${of[$add]}" && added+=("${more[@]}"); done
for module in "${modules[@]}" "${added[@]}"; do # without a driver; from /, because the sources must not be imported
  (cd / && "$python" -W ignore -c "import $module" > /dev/null)
done
if [ "$flavour" = gpu ]; then # what is built in, without a driver
  providers='import onnxruntime; names = onnxruntime.get_available_providers()
raise SystemExit("CUDA" not in str(names) and f"ONNX Runtime has no GPU provider, only {names}")'
  (cd / && "$python" -W ignore -c "$providers")
fi
kernels='from engines.kernels.library import library; raise SystemExit(library() is None and "no compiled kernels")'
(cd / && "$python" -W ignore -c "$kernels")
"$venv/bin/mynah-serve" --help > /dev/null
"$venv/bin/mynah" --help > /dev/null
"$venv/bin/mynah-engines" --help > /dev/null 2>&1 # its usage goes to standard error
