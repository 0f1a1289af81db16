# syntax=docker/dockerfile:1.19@sha256:b6afd42430b15f2d2a4c5a02b919e98a525b785b1aaff16747d2f623364e39b6
# Mynah's images: `docker build --target cpu .` and `docker build --target gpu --build-arg FLAVOUR=gpu .`
#
# For batches on Ray: --build-arg ADD=ray
#
# Every RUN is a script from docker/. CI runs the same scripts in a clean environment, because it has no Docker engine.
# To include weights:  --build-context weights=FOLDER  (a checkpoint in upstream's layout). The gpu image then also has
# TensorRT engines for SM 8.6, built without a GPU; run it with MYNAH_MODEL=/opt/models/weights and a copy of
# /opt/models/cache in /var/lib/mynah (k8s/components/baked-weights). Without weights the init container downloads them
# and builds the engines on the node.
#
# `--target sbom` has the bill of materials alone: docker build --target sbom --output type=local,dest=out .
# Images are pinned by digest of all their architectures; docker/pin.sh writes the digests.
# Both flavours use one base: CUDA 12.6's runtime libraries are pinned wheels in the gpu lock file, and torch 2.7.0
# loads these whatever the base image has; a CUDA base image would only add a second copy of 3 GB.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

# checkov:skip=CKV_DOCKER_7: the base image's tag is in PYTHON_IMAGE, pinned above
# ---- the Python environment
FROM ${PYTHON_IMAGE} AS builder
ARG FLAVOUR=cpu
ARG ADD=""
ARG TORCH_BACKEND=cpu
WORKDIR /src
COPY docker/compiler.sh docker/install.sh docker/check.sh docker/sbom.sh docker/
COPY docker/locks docker/locks
COPY pyproject.toml README.md LICENSE ./
COPY engines engines
COPY service service
COPY protos protos
# for the compiled kernels; the compiler is not in the final images
RUN docker/compiler.sh
# hadolint ignore=DL3059
RUN docker/install.sh "${FLAVOUR}" /opt/mynah
# separate layers, so that a failing check does not repeat the installation
# hadolint ignore=DL3059
RUN docker/check.sh "${FLAVOUR}" /opt/mynah
# hadolint ignore=DL3059
RUN docker/sbom.sh /opt/mynah /opt/sbom/mynah.cdx.json

# ---- the bill of materials, for reports
FROM scratch AS sbom
COPY --from=builder /opt/sbom/mynah.cdx.json /

# ---- weights, if the build has a context of that name
FROM scratch AS weights

# ---- prepared weights and engines, if there are weights
FROM builder AS prepared
ARG FLAVOUR=cpu
COPY docker/prepare.sh docker/
RUN --mount=type=bind,from=weights,target=/weights \
    docker/prepare.sh "${FLAVOUR}" /opt/mynah /weights /opt/models

# ---- the common part of both final images
FROM ${PYTHON_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Mynah" \
      org.opencontainers.image.description="Streaming speech server for Chatterbox Turbo and Nano" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      io.mynah.sbom.format="CycloneDX" \
      io.mynah.sbom.path="/usr/share/mynah/mynah.cdx.json"
COPY --from=builder /opt/mynah /opt/mynah
COPY --from=builder /opt/sbom /usr/share/mynah
COPY --from=prepared /opt/models /opt/models
# The root file system may be read-only: the server writes only below /var/lib/mynah and /tmp.
ENV PATH=/opt/mynah/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MYNAH_CACHE_DIR=/var/lib/mynah \
    PKUSEG_HOME=/var/lib/mynah/pkuseg
RUN --mount=type=bind,source=docker/state.sh,target=/run/state.sh \
    /run/state.sh
VOLUME /var/lib/mynah
EXPOSE 50051 8080 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=600s --retries=3 CMD ["mynah", "health"]
ENTRYPOINT ["mynah-serve"]

FROM runtime AS cpu
USER 65532:65532

# NVIDIA_REQUIRE_CUDA: a driver of any CUDA 12 runs libraries of 12.6 (minor version compatibility, driver 525 or newer).
# LD_LIBRARY_PATH: GKE mounts the driver's libraries there; other clusters have no such folder.
FROM runtime AS gpu
RUN --mount=type=bind,source=docker/compiler.sh,target=/run/compiler.sh \
    /run/compiler.sh
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA="cuda>=12.0" \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    CC=gcc \
    VLLM_CACHE_ROOT=/var/lib/mynah/vllm \
    TRITON_CACHE_DIR=/var/lib/mynah/triton \
    TORCHINDUCTOR_CACHE_DIR=/var/lib/mynah/inductor \
    VLLM_NO_USAGE_STATS=1
USER 65532:65532
