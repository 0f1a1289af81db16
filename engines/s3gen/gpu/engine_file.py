"""TensorRT engines on disk, named by what they were built from and for.

Beside every engine lies a JSON file with its identity and hash. An engine is a program for one GPU and one version of
TensorRT, and loading a wrong one can crash the process, so every other engine is refused.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from engines.errors import EngineError
from engines.onnx.export_cache import sha256

REBUILD = "mynah-engines build"


class EngineFileRefused(EngineError):
    """An engine is missing, stale, foreign or damaged; the message says how to rebuild it."""

    reason: str = "TENSORRT_ENGINE_REFUSED"


@dataclass(frozen=True)
class EngineIdentity:
    """What an engine was built from and for.

    profiles  a digest of its optimisation profiles and of how it was built
    gpu       the GPU's name; "any" for an engine that runs on every GPU of the architecture
    """

    graph: str
    graph_hash: str
    architecture: str  # sm86
    tensorrt: str  # "tensorrt_rtx 1.7.1.116"
    precision: str
    profiles: str
    gpu: str = "any"

    @property
    def file_name(self) -> str:
        made_from = f"{self.graph}-{self.graph_hash[:12]}-{self.profiles[:6]}"
        gpu = "" if self.gpu == "any" else f"-{slug(self.gpu)}"
        made_for = f"{self.architecture}{gpu}-{self.tensorrt.replace(' ', '-')}-{self.precision}"
        return f"{made_from}-{made_for}.engine"


def slug(gpu: str) -> str:
    """A GPU's name in a file's: NVIDIA A10G -> nvidia-a10g."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def write_engine(folder: Path, identity: EngineIdentity, engine: bytes | memoryview, **facts: object) -> Path:
    """Write the engine, then its identity, so that an engine without one is known to be unfinished."""
    path = folder / identity.file_name
    partial = path.with_suffix(".partial")
    partial.write_bytes(engine)
    partial.replace(path)
    record = {**asdict(identity), "bytes": path.stat().st_size, "sha256": sha256(path), **facts}
    _record(path).write_text(json.dumps(record, indent=2) + "\n")
    return path


def find_engine(folder: Path, wanted: EngineIdentity, *, model: str = "auto", steps: str = "auto") -> Path:
    """The engine with exactly this identity.

    Raises EngineFileRefused with the first difference to the file found and the command that rebuilds it for `model`
    and these `--s3gen-steps`.
    """
    path, command = folder / wanted.file_name, _command(wanted, model, steps)
    if not path.is_file():
        raise EngineFileRefused(f"{_why_missing(folder, wanted)}; build it with: {command}")
    try:
        record = json.loads(_record(path).read_text())
    except (OSError, ValueError) as error:
        raise EngineFileRefused(f"{path.name}: no readable record of it; rebuild: {command}") from error
    for key, value in asdict(wanted).items():
        if record.get(key) != value:
            raise EngineFileRefused(
                f"{path.name}: {key} is {record.get(key)!r}, needed is {value!r}; rebuild: {command}"
            )
    if record.get("bytes") != path.stat().st_size or record.get("sha256") != sha256(path):
        raise EngineFileRefused(f"{path.name}: damaged (size or hash is not what was written); rebuild: {command}")
    return path


def _why_missing(folder: Path, wanted: EngineIdentity) -> str:
    """The first difference of another engine of this graph in `folder`."""
    for record_path in sorted(folder.glob(f"{wanted.graph}-*.engine.json")):
        try:
            record = json.loads(record_path.read_text())
        except (OSError, ValueError):
            continue
        for key, value in asdict(wanted).items():
            if record.get(key) != value:
                return f"{folder}: the engine for {wanted.graph} has {key} {record.get(key)!r}, needed is {value!r}"
    return f"{folder}: there is no engine for {wanted.graph}"


def _command(wanted: EngineIdentity, model: str, steps: str) -> str:
    command = f"{REBUILD} --model {shlex.quote(model)} --arch {wanted.architecture} --precision {wanted.precision}"
    return command if steps == "auto" else f"{command} --s3gen-steps {steps}"


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".json")
