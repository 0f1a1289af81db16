# syntax=docker/dockerfile:1.19
# Mynah's images: `docker build --target cpu .` and `docker build --target gpu --build-arg FLAVOUR=gpu .`
#
# Every RUN is a script from docker/; CI runs the same scripts in a clean environment, because it has no Docker engine.
# Weights can be baked in:  --build-context weights=FOLDER  (a checkpoint in upstream's layout). The gpu image then also
# carries TensorRT engines for SM 8.6, built without a GPU; run it with MYNAH_MODEL=/opt/models/weights and a copy of
# /opt/models/cache in /var/lib/mynah (k8s/components/baked-weights). Without weights the init container makes both on the node.
#
# For a build that is the same to the byte, give the base image by digest: --build-arg PYTHON_IMAGE=python@sha256:...
# One base serves both flavours: CUDA 12.6's runtime libraries are pinned wheels in the gpu lock file, which torch 2.7.0
# loads whatever the base image carries; a CUDA base image would only bring a second copy of 3 GB.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

# checkov:skip=CKV_DOCKER_7: the base image's tag is in PYTHON_IMAGE, pinned above
# ---- what the image's Python is made of
FROM ${PYTHON_IMAGE} AS builder
ARG FLAVOUR=cpu
ARG TORCH_BACKEND=cpu
WORKDIR /src
COPY docker/compiler.sh docker/install.sh docker/check.sh docker/sbom.sh docker/
COPY docker/locks docker/locks
COPY pyproject.toml README.md LICENSE ./
COPY engines engines
COPY service service
COPY protos protos
# for the compiled kernels; the compiler stays in this stage
RUN docker/compiler.sh
# hadolint ignore=DL3059
RUN docker/install.sh "${FLAVOUR}" /opt/mynah
# separate layers: a failing check must not cost the install once more
# hadolint ignore=DL3059
RUN docker/check.sh "${FLAVOUR}" /opt/mynah
# hadolint ignore=DL3059
RUN docker/sbom.sh /opt/mynah /opt/sbom/mynah.cdx.json

# ---- weights, where the build is given any
FROM scratch AS weights

# ---- engines built ahead of time, where there are weights
FROM builder AS prepared
ARG FLAVOUR=cpu
COPY docker/prepare.sh docker/
RUN --mount=type=bind,from=weights,target=/weights \
    docker/prepare.sh "${FLAVOUR}" /opt/mynah /weights /opt/models

# ---- what both final images share
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
# The root file system may be read-only: everything that is written lies below /var/lib/mynah or /tmp.
ENV PATH=/opt/mynah/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MYNAH_CACHE_DIR=/var/lib/mynah
RUN --mount=type=bind,source=docker/state.sh,target=/run/state.sh \
    /run/state.sh
VOLUME /var/lib/mynah
EXPOSE 50051 8080 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=600s --retries=3 CMD ["mynah", "health"]
ENTRYPOINT ["mynah-serve"]

FROM runtime AS cpu
USER 65532:65532

FROM runtime AS gpu
RUN --mount=type=bind,source=docker/compiler.sh,target=/run/compiler.sh \
    /run/compiler.sh
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA="cuda>=12.6" \
    CC=gcc \
    VLLM_CACHE_ROOT=/var/lib/mynah/vllm \
    TRITON_CACHE_DIR=/var/lib/mynah/triton \
    TORCHINDUCTOR_CACHE_DIR=/var/lib/mynah/inductor \
    VLLM_NO_USAGE_STATS=1
USER 65532:65532
