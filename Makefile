# Every command a person or CI needs. Nothing but Python 3.11 and the package registries is assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
LISTEN ?= 127.0.0.1:50051
HTTP ?= 127.0.0.1:8080
PAGE ?= 127.0.0.1:7860
MODEL ?= auto
TORCH ?= torch==2.13.0
# vLLM's CPU build for its tests: a wheel that was built before, or its source archive
VLLM_WHEEL ?= $(firstword $(wildcard ../shared/wheels/vllm-0.9.2+cpu-cp311-*.whl))
# A second environment, for the page and for what tests servers from outside: Gradio and openai's client need newer
# versions of packages (huggingface_hub, openai) than the server's tests, which hold vLLM 0.9.2 and the published package.
UI_VENV := .venv-ui
UI_BIN := $(UI_VENV)/bin
UI_UV := $(UI_BIN)/uv pip install --quiet --python $(UI_BIN)/python

.DEFAULT_GOAL := help
.PHONY: help install demo serve page check test test-ui chromium flite screenshots test-vllm test-clients test-typescript test-watermark bench-t3 lint types imports proto proto-check bench-engine bench-service bench-http soak bench-load bench-batch bench-length bench-t3-weights bench-stream bench-s3gen engines image-steps test-fleet fleet-tools clean first-run

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

$(VENV)/installed: pyproject.toml protos/pyproject.toml $(wildcard engines/kernels/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Mynah needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/one")'
	@echo "Installing the server into $(VENV), about 1 GB: a few minutes the first time."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
# torch alone goes through pip, pinned: any wider range would let a resolver fetch gigabytes of CUDA
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" "numpy>=2,<2.3"
	@$(UV) -e ./protos -e '.[cpu]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed tests/reference/requirements.txt tests/reference/requirements-no-deps.txt
	$(UV) -e ./protos -e '.[cpu,dev,trt]' -r tests/reference/requirements.txt
	$(UV) --no-deps -r tests/reference/requirements-no-deps.txt
	touch $@

install: $(VENV)/installed ## install what a CPU server needs into .venv

$(UI_VENV)/installed: pyproject.toml protos/pyproject.toml
	@echo "Installing the page into $(UI_VENV), about 0.4 GB."
	@$(PYTHON) -m venv $(UI_VENV)
	@$(UI_BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(UI_UV) -e ./protos -e '.[ui]'
	@touch $@

# at a terminal the page stays open afterwards, elsewhere the demo ends by itself
demo: $(VENV)/installed $(if $(MAKE_TERMOUT),$(UI_VENV)/installed) ## start a server, stream a paragraph through the client, leave a WAV; at a terminal, open the page
	@$(BIN)/python -m bench.demo --model $(MODEL) $(if $(MAKE_TERMOUT),--page $(UI_BIN)/python)

serve: $(VENV)/installed $(UI_VENV)/installed ## keep a server and its page up (MODEL=..., LISTEN=HOST:PORT, HTTP=HOST:PORT, PAGE=HOST:PORT)
	@$(BIN)/python -m tools.serve --model $(MODEL) --listen $(LISTEN) --http $(HTTP) --page $(PAGE) --page-python $(UI_BIN)/python

page: $(UI_VENV)/installed ## the page alone, for a server elsewhere (SERVER=HOST:PORT, PAGE=HOST:PORT)
	$(UI_BIN)/python -m ui --server $(or $(SERVER),$(LISTEN)) --listen $(PAGE)

flite:
	@command -v flite >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq flite >/dev/null; \
	  else echo "The tests speak their reference clips with flite: sudo apt-get install flite" >&2; exit 1; fi; }

# two workers; the files of a folder that shares slow fixtures go to one of them (tests/conftest.py)
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup

check: $(VENV)/installed-dev flite lint types imports ## what to run after every change: lint, types, import rules and the fast tests
	$(PYTEST) --fast $(ARGS)

test: $(VENV)/installed-dev flite ## install and run every test but those of the page, of vLLM, of the clients, of the fleet, of Ray and of the packages
	$(PYTEST) $(ARGS)

chromium:
	@test -x /usr/bin/chromium || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq chromium >/dev/null; \
	  else echo "The page's tests run in Debian's Chromium: sudo apt-get install chromium" >&2; exit 1; fi; }

$(UI_VENV)/installed-dev: $(UI_VENV)/installed tests/ui/requirements.txt tests/clients/requirements.txt tests/fleet/requirements.txt
	$(UI_UV) -r tests/ui/requirements.txt -r tests/clients/requirements.txt -r tests/fleet/requirements.txt
	touch $@

test-ui: $(VENV)/installed $(UI_VENV)/installed-dev chromium ## the page's types, and the page in a browser against a real server
	$(UI_BIN)/mypy --package ui
	$(UI_BIN)/python -m pytest tests/ui tests/security/test_page.py tests/security/test_page_gap.py

screenshots: $(VENV)/installed $(UI_VENV)/installed-dev chromium ## docs/page-*.png, for the README
	$(UI_BIN)/python -m tests.ui.screenshots

# in the server's environment: vLLM's pins agree with those of the tests
$(VENV)/installed-vllm: $(VENV)/installed-dev tests/vllm/requirements.txt
	$(UV) -r tests/vllm/requirements.txt
ifneq ($(VLLM_WHEEL),)
	$(UV) --no-deps "$(VLLM_WHEEL)"
else
	@echo "No wheel of vLLM's CPU build is here, so it is built: about 10 minutes on 2 cores; needs a C++ compiler and libnuma-dev." >&2
	$(UV) cmake setuptools-scm wheel
	PATH="$(abspath $(BIN)):$$PATH" VLLM_TARGET_DEVICE=cpu $(UV) --no-build-isolation --no-deps --no-binary vllm vllm==0.9.2
endif
	touch $@

# PYTHONPATH: the attention that vLLM's CPU engine imports and no registry has
test-vllm: $(VENV)/installed-vllm ## T3 on the real vLLM engine, on the CPU
	PYTHONPATH=tests/vllm/cpu_attention $(BIN)/python -c "import vllm"
	$(BIN)/python -m pytest tests/vllm

bench-t3: $(VENV)/installed-vllm ## speech tokens per second: vLLM, our torch backend, the published package's loop
	PYTHONPATH=tests/vllm/cpu_attention $(BIN)/python -m bench.t3

test-clients: $(VENV)/installed $(UI_VENV)/installed-dev ## openai's client, LiveKit's and Pipecat's plugins and those in clients/ against a server
	$(UI_BIN)/python -m pytest tests/clients

TYPESCRIPT := clients/typescript
$(TYPESCRIPT)/node_modules/installed: $(TYPESCRIPT)/package.json $(TYPESCRIPT)/package-lock.json
	@command -v npm >/dev/null || { echo "The TypeScript client needs Node.js 20 or newer with npm: sudo apt-get install nodejs npm" >&2; exit 1; }
	cd $(TYPESCRIPT) && npm ci --silent --no-audit --no-fund
	touch $@

test-typescript: $(VENV)/installed-dev $(TYPESCRIPT)/node_modules/installed chromium ## the TypeScript client: its types, in Node over gRPC and in Chromium over the WebSocket
	cd $(TYPESCRIPT) && npm run --silent build && npm run --silent types && npm run --silent test

# Its torchaudio is linked to CUDA's libraries; what is used of it is Python
WATERMARK := build/watermark
$(WATERMARK)/installed: tests/watermark/requirements.txt $(VENV)/installed-dev
	$(BIN)/uv pip install --quiet --target $(WATERMARK) --no-deps -r tests/watermark/requirements.txt
	rm -f $(WATERMARK)/torchaudio/lib/*.so
	touch $@

# A batch on a Ray cluster of this machine
RAY := build/ray
$(RAY)/installed: tests/ray/requirements.txt $(VENV)/installed-dev
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(RAY) --no-deps -r tests/ray/requirements.txt
	touch $@

.PHONY: test-ray bench-ray
test-ray: $(RAY)/installed ## a batch on Ray: two engines, one killed in the middle, the bytes of mynah batch
	PYTHONPATH=$(RAY) $(BIN)/python -m pytest tests/ray

bench-ray: $(RAY)/installed ## what Ray costs a batch: engines on it beside plain loops
	PYTHONPATH=$(RAY) OMP_NUM_THREADS=1 $(BIN)/python -m bench.batch --ray $(ARGS)

.PHONY: test-packages
test-packages: $(VENV)/installed-dev ## both distributions: built, installed into empty environments, served and spoken with
	$(BIN)/python -m pytest tests/packages

test-watermark: $(WATERMARK)/installed ## the real watermark on streamed speech, and what it costs
	PYTHONPATH=$(WATERMARK) $(BIN)/python -m pytest tests/watermark

lint: $(VENV)/installed-dev ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/installed-dev ## mypy --strict on our packages
	$(BIN)/mypy

imports: $(VENV)/installed-dev ## who may import whom
	$(BIN)/lint-imports

proto: $(VENV)/installed-dev $(TYPESCRIPT)/node_modules/installed ## regenerate the committed protobuf code, Python's and TypeScript's
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=protos --pyi_out=protos --grpc_python_out=protos protos/mynah/v1/*.proto
	node $(TYPESCRIPT)/generate.mjs

bench-engine: $(VENV)/installed-dev ## ours and the published package side by side
	$(BIN)/python -m bench.engine

proto-check: ## lint the contract with buf (needs Node.js)
	cd protos && npx --yes @bufbuild/buf@1.75.0 lint

bench-service: $(VENV)/installed-dev ## the service alone: overhead at 64 streams, malformed requests, cancels, refusals
	$(BIN)/python -m bench.service $(ARGS)

bench-http: $(VENV)/installed-dev ## the HTTP surface alone: overhead at 64 streams over HTTP and WebSocket, refusals, slots
	$(BIN)/python -m bench.http $(ARGS)

bench-load: $(VENV)/installed-dev ## the highest rate of streams a server carries (ARGS="--surface grpc --model nano")
	$(BIN)/python -m bench.load $(ARGS)

SOAK_S ?= 600
soak: $(VENV)/installed-dev ## SOAK_S seconds of cancels, slow readers, nonsense and faults; nothing may leak
	$(BIN)/python -m bench.soak --seconds $(SOAK_S) $(ARGS)

bench-t3-weights: $(VENV)/installed-dev ## T3's weights in float16 and 8 bits: draws, and times of a step (ARGS="--model tiny")
	$(BIN)/python -m bench.t3_weights $(ARGS)

bench-batch: $(VENV)/installed-dev ## lines one by one, all together, and by the published package (ARGS="--model random:nano")
	$(BIN)/python -m bench.batch $(ARGS)

bench-length: $(VENV)/installed-dev ## the cost of a second of audio over 2 s to 10 minutes, with docs/cost-by-length.png
	$(BIN)/python -m bench.length $(ARGS)

bench-stream: $(VENV)/installed-dev ## streaming: cost, closeness to one pass, concurrent streams, seams
	$(BIN)/python -m bench.stream

FUZZ_S ?= 60
FUZZERS := http websocket multipart body grpc_messages frames text spoken_text
.PHONY: fuzz
FUZZ_AT_ONCE ?= 2
fuzz: $(VENV)/installed-dev ## FUZZ_S CPU seconds of invalid input for each parser of what clients send (FUZZ_AT_ONCE=2)
	mkdir -p build/fuzz
	printf '%s\n' $(FUZZERS) | PYTHONPATH=.:protos xargs -P $(FUZZ_AT_ONCE) -I NAME sh -c '\
	  $(BIN)/python -m tests.security.fuzz NAME -max_cpu_time=$(FUZZ_S) -seed=1 -rss_limit_mb=0 -artifact_prefix=build/fuzz/NAME- \
	    > build/fuzz/NAME.log 2>&1 && echo "NAME: $$(grep -o "Done.*" build/fuzz/NAME.log)" \
	    || { tail -n 60 build/fuzz/NAME.log; exit 255; }'

.PHONY: bench-attacks
bench-attacks: $(VENV)/installed-dev ## the largest silence of a healthy stream while others attack its server
	$(BIN)/python -m bench.attacks $(ARGS)

first-run: ## the README's own blocks as a newcomer: a clean clone, an ordinary user, an empty home
	$(PYTHON) -m tools.first_run $(ARGS)

.PHONY: bench-first-segment
bench-first-segment: $(VENV)/installed-dev ## time to first audio from a writer of 12 words a second, by where the first segment may end
	$(BIN)/python -m bench.first_segment

.PHONY: bench-speech test-speech bench-intelligibility
bench-speech: $(VENV)/installed-dev ## what streaming does to intelligibility, on trained weights (MODEL=nano)
	$(BIN)/python -m bench.speech --model $(if $(filter auto,$(MODEL)),tiny,$(MODEL)) $(ARGS)

bench-intelligibility: $(VENV)/installed-dev ## how well the model in the box is understood, beside its teacher
	$(BIN)/python -m bench.intelligibility

test-speech: $(VENV)/installed-dev flite ## the quality gate over all texts; make test takes three of each set
	MYNAH_SPEECH_TEXTS=1000 $(BIN)/python -m pytest tests/speech

bench-s3gen: $(VENV)/installed-dev ## S3Gen's and T3's runtimes and the published package side by side (ARGS="--model random:turbo")
	OMP_WAIT_POLICY=passive $(BIN)/python -m bench.s3gen $(ARGS)

.PHONY: gpu-check gpu-rehearsal
gpu-check: $(VENV)/installed-dev ## what works on this machine's GPU and how fast, in under nine minutes (ARGS="--model random:nano")
	$(BIN)/python -m bench.gpu --out build/gpu --budget 520 $(ARGS)

# tests/bench/bare: without any package that a bare machine with torch lacks
gpu-rehearsal: $(VENV)/installed-dev ## the same steps on the CPU, with the smallest model, as on a machine that has torch alone
	OMP_NUM_THREADS=1 PYTHONPATH=tests/bench/bare $(BIN)/python -m bench.gpu \
	  --out build/gpu-rehearsal --budget 240 --patience 6 --device cpu --model random:tiny

.PHONY: bench-plan
bench-plan: $(VENV)/installed-dev ## the plans of docs/capacity.md: what each GPU should carry, by arithmetic
	$(BIN)/python -m bench.plan

ARCH ?= sm86
engines: $(VENV)/installed-dev ## TensorRT engines for a GPU that need not be here (MODEL=random:turbo, ARCH=sm86)
	$(BIN)/mynah-engines build --model $(MODEL) --arch $(ARCH) $(ARGS)

tests/fleet/node_modules/installed: tests/fleet/package.json
	cd tests/fleet && npm install --silent --no-package-lock --no-audit --no-fund
	touch $@

fleet-tools:
	@command -v kubectl >/dev/null || { echo "The manifests are built by kubectl 1.27 or newer, which is not here; see kubernetes.io/docs/tasks/tools" >&2; exit 1; }
	@command -v promtool >/dev/null && command -v prometheus >/dev/null && command -v nginx >/dev/null && command -v ip >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq prometheus nginx-light iproute2 >/dev/null; \
	  else echo "These tests need: sudo apt-get install prometheus nginx-light iproute2" >&2; exit 1; fi; }

.PHONY: chart dashboards board-pictures
dashboards: $(VENV)/installed-dev ## the Grafana boards, from k8s/dashboards
	$(BIN)/python -m k8s.dashboards

chart: $(VENV)/installed-dev ## the Helm chart, from the kustomize manifests (needs kubectl)
	$(BIN)/python -m k8s.helm

board-pictures: $(VENV)/installed-dev fleet-tools ## docs/board-*.png: the boards' queries under load, drawn; five minutes
	$(BIN)/python -m tests.fleet.pictures

# two servers in network namespaces: needs root
test-fleet: $(VENV)/installed-dev $(UI_VENV)/installed-dev tests/fleet/node_modules/installed fleet-tools ## manifests, rules, dashboards, and two servers behind nginx
	$(BIN)/python -m pytest tests/fleet

# torch from wherever pip finds that version: the images fetch its CPU build, see docker/install.sh
# FLAVOUR=gpu installs 9 GB and needs pypi.nvidia.com (TENSORRT=no: without what comes from there); CI runs cpu's
FLAVOUR ?= cpu
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
image-steps: $(VENV)/installed-dev ## every step of an image, in build/image instead of a Docker engine (FLAVOUR=gpu TENSORRT=no)
	$(SUDO) rm -rf build/image && mkdir -p build/image
	PATH="$(abspath $(BIN)):$$PATH" docker/lock.sh --check
	UV_NO_CACHE=0 TORCH_BACKEND=pip docker/install.sh $(FLAVOUR) build/image/venv
	docker/check.sh $(FLAVOUR) build/image/venv
	docker/sbom.sh build/image/venv build/image/mynah.cdx.json
	build/image/venv/bin/mynah-engines prepare --model random:tiny --cache-dir build/image/cache
	docker/prepare.sh $(FLAVOUR) build/image/venv "$$(dirname build/image/cache/*/ve.safetensors)" build/image/models
# as root, like an image's build: one changes an owner, the other installs packages
	$(SUDO) docker/state.sh build/image/root
	test "$$(stat -c %u:%g build/image/root/var/lib/mynah)" = 65532:65532
	$(SUDO) docker/compiler.sh

clean: ## remove what the targets above made
	rm -rf $(VENV) $(UI_VENV) build
