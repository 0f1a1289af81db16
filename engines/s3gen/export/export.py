"""S3Gen's nets as checked ONNX graphs in a folder with a manifest.

Uses torch's TorchScript exporter: for these nets it is six to ten times as fast as the one over torch.export, which
spends minutes on symbolic shapes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from engines.checkpoints.checkpoint import Checkpoint, default_cache_dir
from engines.model_spec import ModelSpec
from engines.onnx.export_cache import MANIFEST, ExportError, cached_folder, sha256
from engines.s3gen.export.block_graphs import block_graphs, block_nets
from engines.s3gen.export.check import CheckReport, check_graph
from engines.s3gen.export.fold import fold_weights
from engines.s3gen.export.graphs import CFM, GRAPHS, Graph, Port, load_nets, random_inputs, variant
from engines.s3gen.export.precision import to_mixed_fp16

_log = logging.getLogger(__name__)
OPSET = 18
# The files that determine the graphs; a change to any of them makes a new export.
_SOURCES = (
    *(f"nets/{n}" for n in ("layers", "encoder", "cfm", "flow", "source", "spectrum", "vocoder", "vocoder_weights")),
    *(f"cache/{n}" for n in ("cached_flow", "attention", "conv")),
    *(f"export/{n}" for n in ("graphs", "block_graphs", "export", "fold", "precision")),
)
PRECISIONS = ("fp32", "fp16")
_EXAMPLE_LENGTHS = {
    "tokens": [12, 9],
    "frames": [24, 17],
}  # of the inputs that the nets are traced with; all sizes work


@dataclass(frozen=True)
class ExportSettings:
    """Some of `graphs_of` a model in one variant. `threads` is for the check's ONNX Runtime sessions."""

    graphs: tuple[str, ...] = tuple(GRAPHS)
    padded: bool = True
    precision: str = "fp32"
    threads: int = 1


@dataclass(frozen=True)
class Export:
    """A finished export folder."""

    folder: Path
    manifest: dict[str, Any]

    def path(self, graph: str) -> Path:
        return self.folder / str(self.manifest["graphs"][graph]["file"])

    def graph_hash(self, graph: str) -> str:
        return str(self.manifest["graphs"][graph]["sha256"])


def export(checkpoint: Checkpoint, settings: ExportSettings, *, cache_dir: Path | None = None) -> Export:
    """Returns the checkpoint's graphs from the cache, or makes and checks them (a minute at full size).

    Raises ExportError if a graph fails its check, CheckpointError if the weights do not fit.
    """
    root = (cache_dir or default_cache_dir()) / "onnx"
    identity = {
        "weights": sha256(checkpoint.s3gen_path, memo_dir=root),
        "opset": OPSET,
        "exporter": exporter_version(),
        "graphs": settings.graphs,
        "padded": settings.padded,
        "precision": settings.precision,
    }

    def make(folder: Path) -> None:
        _log.info("Exporting S3Gen to ONNX (%s, %s). This happens once.", checkpoint.spec.name, settings.precision)
        _write_export(checkpoint, settings, folder, identity)

    return open_export(cached_folder(root, f"s3gen-{checkpoint.spec.name}-{settings.precision}", identity, make))


def graphs_of(spec: ModelSpec) -> dict[str, Graph]:
    """All graphs by name. Ten unrolled steps would be ten times one step's graph, and say no more."""
    whole = {name: graph for name, graph in GRAPHS.items() if graph is not CFM or not spec.flow.guided_steps}
    return {**whole, **block_graphs(spec.flow)}


def exporter_version() -> str:
    """A digest of the code that turns weights into graphs."""
    room = Path(__file__).parents[1]
    return hashlib.sha256(b"".join((room / f"{name}.py").read_bytes() for name in _SOURCES)).hexdigest()[:16]


def open_export(folder: Path) -> Export:
    """Read the export in `folder`. Raises ExportError if it has no manifest or a file of the wrong size."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise ExportError(f"{folder} has no readable {MANIFEST} ({error}); export again.") from error
    for name, entry in manifest["graphs"].items():
        path = folder / entry["file"]
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise ExportError(f"{path}: graph {name} is missing or cut short; delete {folder} and export again.")
    return Export(folder, manifest)


def _write_export(checkpoint: Checkpoint, settings: ExportSettings, folder: Path, identity: dict[str, object]) -> None:
    nets, graphs = load_nets(checkpoint) | block_nets(checkpoint), graphs_of(checkpoint.spec)
    entries = {}
    for name in settings.graphs:
        graph = graphs[name]
        net = variant(graph, nets[name], padded=settings.padded)
        path = folder / f"{name}.onnx"
        export_graph(graph, net, path, padded=settings.padded)
        model = onnx.load(path)
        fold_weights(model)
        onnx.save(to_mixed_fp16(model, name) if settings.precision == "fp16" else model, path)
        report = check_graph(
            graph, net, path, padded=settings.padded, precision=settings.precision, threads=settings.threads
        )
        report.raise_if_bad(name)
        entries[name] = _entry(graph, path, report, settings)
    manifest = {**identity, "model": checkpoint.spec.name, "torch": torch.__version__, "graphs": entries}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _entry(graph: Graph, path: Path, report: CheckReport, settings: ExportSettings) -> dict[str, object]:
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "inputs": {port.name: [port.dtype, *port.axes] for port in graph.ports(padded=settings.padded)},
        "outputs": {port.name: [port.dtype, *port.axes] for port in graph.outputs},
        "check": report.as_dict(),
    }


def export_graph(graph: Graph, net: nn.Module, path: Path, *, padded: bool) -> None:
    """Trace `net`, a `variant` of the graph's, with batch and length left open, and write it to `path` in fp32."""
    ports = graph.ports(padded=padded)
    arrays = random_inputs(graph, _trace_lengths(graph, padded=padded), seed=0)
    axes = {port.name: _open_axes(port) for port in (*ports, *graph.outputs)}
    with _quiet():
        torch.onnx.export(
            net,
            tuple(torch.from_numpy(arrays[port.name]) for port in ports),
            str(path),
            input_names=[port.name for port in ports],
            output_names=[port.name for port in graph.outputs],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def _trace_lengths(graph: Graph, *, padded: bool) -> list[int]:
    lengths = _EXAMPLE_LENGTHS[graph.time]
    return lengths if padded else [max(lengths)] * len(lengths)


def _open_axes(port: Port) -> dict[int, str]:
    return {index: axis for index, axis in enumerate(port.axes) if isinstance(axis, str)}


@contextlib.contextmanager
def _quiet() -> Any:
    """Suppresses the exporter's warnings about shapes that it traces correctly, and its notice of deprecation."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
