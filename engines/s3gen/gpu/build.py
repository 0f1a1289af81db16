"""TensorRT engines from checked ONNX graphs, for a GPU that need not be in this machine.

One engine per graph, with one optimisation profile per bucket. Networks are strongly typed: precision is in the graphs.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.checkpoints.checkpoint import default_cache_dir
from engines.model_spec import FlowSpec
from engines.onnx.export_cache import ExportError
from engines.s3gen.export.export import Export
from engines.s3gen.export.graphs import CFM, CFM_STEP, ENCODER, GRAPHS, VOCODER, Graph
from engines.s3gen.gpu.buckets import Bucket, buckets
from engines.s3gen.gpu.engine_file import EngineFileRefused, EngineIdentity, find_engine, write_engine
from engines.s3gen.gpu.trt import RTX_ARCHITECTURES, TensorRT
from engines.s3gen.gpu.trt import architecture as checked_architecture

_log = logging.getLogger(__name__)
# What `_config` sets, in a digest of every engine's identity: change it with the settings, and engines are built again.
_HOW = "TF32 off, scratch memory from the caller, no auxiliary streams"
ENGINE_GRAPHS = (ENCODER.name, CFM.name, VOCODER.name)


def engine_graphs(flow: FlowSpec) -> tuple[str, ...]:
    """The graphs that become engines: of many steps one alone, which solver.py repeats."""
    return (ENCODER.name, CFM_STEP.name, VOCODER.name) if flow.guided_steps else ENGINE_GRAPHS


@dataclass(frozen=True)
class BuildSettings:
    """architecture     of the GPU that will run the engines, e.g. sm86
    gpu              its name, for standard TensorRT, whose engines run on GPUs of that name alone
    workspace_bytes    limit of a kernel's scratch memory on that GPU
    timing_cache       a file of kernel times kept between builds, for flavours that measure them; None: no cache
    graphs             that become engines, `engine_graphs` of the model
    """

    architecture: str = "sm86"
    workspace_bytes: int = 2 << 30
    timing_cache: Path | None = None
    gpu: str = "any"
    graphs: tuple[str, ...] = ENGINE_GRAPHS

    def __post_init__(self) -> None:
        checked_architecture(self.architecture)


def identity(made: Export, graph: str, settings: BuildSettings, trt: TensorRT) -> EngineIdentity:
    """The identity of the engine for this graph, GPU and TensorRT."""
    profiles = hashlib.sha256(repr((buckets(GRAPHS[graph]), _HOW)).encode()).hexdigest()
    version, precision = f"{trt.name} {trt.version}", str(made.manifest["precision"])
    gpu = "any" if trt.portable else settings.gpu
    return EngineIdentity(graph, made.graph_hash(graph), settings.architecture, version, precision, profiles, gpu)


def build_engines(
    made: Export, folder: Path, settings: BuildSettings, trt: TensorRT, graphs: Sequence[str] = ()
) -> dict[str, Path]:
    """Build the engines of an export that `folder` lacks. Returns the paths of all. Raises ExportError.

    graphs: some of the settings'; (): all of them
    """
    if trt.portable and settings.architecture not in RTX_ARCHITECTURES:
        raise ExportError(
            f"{trt.name} does not support {settings.architecture}, only {', '.join(RTX_ARCHITECTURES)}; "
            "install tensorrt-cu12 on the machine with that GPU."
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name in graphs or settings.graphs:
        wanted = identity(made, name, settings, trt)
        try:
            paths[name] = find_engine(folder, wanted)
        except EngineFileRefused as reason:
            _log.info("%s", reason)
            started = time.monotonic()
            engine = build_engine(made.path(name), GRAPHS[name], buckets(GRAPHS[name]), settings, trt)
            paths[name] = write_engine(folder, wanted, engine, build_s=round(time.monotonic() - started, 1))
    return paths


def build_engine(
    path: Path, graph: Graph, profiles: Sequence[Bucket], settings: BuildSettings, trt: TensorRT
) -> memoryview:
    """Parse one ONNX file and compile it. Raises ExportError with the parser's or the builder's message."""
    api = trt.module
    logger = _Log(api).logger
    builder = api.Builder(logger)
    network = builder.create_network(1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = api.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ExportError(f"{trt.name} cannot read {path.name}: {errors}")
    config = _config(builder, settings, trt)
    for bucket in profiles:
        config.add_optimization_profile(_profile(builder, graph, bucket))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(f"{trt.name} {trt.version} could not build {path.name} for {settings.architecture}")
    _keep_timing_cache(config, settings, trt)
    return memoryview(engine)


def _config(builder: Any, settings: BuildSettings, trt: TensorRT) -> Any:
    api = trt.module
    config = builder.create_builder_config()
    config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    # they would be streams of TensorRT's own, and so may be ones that the legacy default stream waits for
    config.max_aux_streams = 0
    config.clear_flag(api.BuilderFlag.TF32)  # on by default; what the graphs keep in float32 needs all its bits
    if (user_allocation := getattr(api.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)) is not None:
        config.set_flag(user_allocation)  # all scratch memory is ours; a stream capture must not allocate
    if trt.portable:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(api.ComputeCapability, RTX_ARCHITECTURES[settings.architecture]), 0)
    elif settings.timing_cache is not None:
        known = settings.timing_cache.read_bytes() if settings.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    return config


def _profile(builder: Any, graph: Graph, bucket: Bucket) -> Any:
    profile = builder.create_optimization_profile()
    for port in graph.inputs:
        shapes = [
            port.shape(graph.sizes(batch, length)) for batch, length in zip(bucket.batch, bucket.length, strict=True)
        ]
        profile.set_shape(port.name, *shapes)
    return profile


def _keep_timing_cache(config: Any, settings: BuildSettings, trt: TensorRT) -> None:
    if settings.timing_cache is not None and not trt.portable:
        settings.timing_cache.parent.mkdir(parents=True, exist_ok=True)
        settings.timing_cache.write_bytes(memoryview(config.get_timing_cache().serialize()))


class _Log:
    """TensorRT's messages in our log. Its logger must be subclassed, which is possible only once it is imported."""

    def __init__(self, api: Any) -> None:
        levels = {
            api.ILogger.INTERNAL_ERROR: logging.ERROR,
            api.ILogger.ERROR: logging.ERROR,
            api.ILogger.WARNING: logging.DEBUG,  # it warns about every cast of an index
        }

        class Logger(api.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                api.ILogger.__init__(self)

            def log(self, severity: object, message: str) -> None:
                _log.log(levels.get(severity, logging.DEBUG), "%s", message)

        self.logger = Logger()


def engine_folder(cache_dir: Path | None) -> Path:
    """Where engines lie below a cache folder."""
    return (cache_dir or default_cache_dir()) / "engines"
