"""Checkpoints of upstream's layout with seeded random weights, created atomically in the cache folder."""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from engines.checkpoints.file_lock import locked
from engines.checkpoints.random_tokenizer import write_random_tokenizer
from engines.checkpoints.tensor_file import write_tensors
from engines.errors import CheckpointError
from engines.model_spec import ModelSpec

Array = npt.NDArray[Any]
NamedTensors = Mapping[str, Array] | Iterable[tuple[str, Array]]

_log = logging.getLogger(__name__)

MANIFEST = "random.json"


class Generator(Protocol):
    """Writes checkpoint folders. `version` increases when the same seed gives other weights."""

    version: int

    def fingerprint(self) -> str:
        """Returns a digest of the code that draws the weights, in case `version` was not increased."""
        ...

    def fill(self, folder: Path, spec: ModelSpec, seed: int) -> None:
        """Write every file of a checkpoint into the empty `folder`."""
        ...


class NetGenerator:
    """Writes random weights of all nets, a random voice, and a tokenizer."""

    version = 3

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in sources():
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def fill(self, folder: Path, spec: ModelSpec, seed: int) -> None:
        from engines.conditioning import random_weights as voice
        from engines.conditioning.builtin import save_builtin
        from engines.s3gen import random_weights as s3gen
        from engines.t3 import random_weights as t3

        write_tensors(folder / spec.t3_file, _pairs(t3.random_tensors(spec, seed)))
        nets = chain(_pairs(s3gen.random_tensors(spec, seed)), _pairs(voice.random_tensors(spec, seed)))
        write_tensors(folder / spec.s3gen_name, nets)
        write_tensors(folder / "ve.safetensors", _pairs(voice.random_voice_encoder_tensors(spec, seed)))
        save_builtin(voice.random_voice(seed, spec.conditioning.t3_prompt_tokens), folder / "conds.pt")
        write_random_tokenizer(folder, spec)


def sources() -> list[Path]:
    """Returns the files that determine the weights: this one and all of the package that it imports."""
    package = Path(__file__).parents[1]
    files: set[Path] = set()
    pending = [Path(__file__)]
    while pending:
        path = pending.pop()
        if path in files or not path.is_file():
            continue
        files.add(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package.name):
                names = (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
                pending += [package.parent / f"{str(name).replace('.', '/')}.py" for name in names]
    return sorted(files)


def _pairs(tensors: NamedTensors) -> Iterable[tuple[str, Array]]:
    return tensors.items() if isinstance(tensors, Mapping) else tensors


def materialise(spec: ModelSpec, seed: int, cache_dir: Path, generator: Generator) -> Path:
    """Returns the folder of random weights for `spec` and `seed`, created if it does not exist.

    It is created atomically; of several processes, one creates it and the others wait. A folder that is incomplete or
    that other code created is replaced. Raises CheckpointError if `cache_dir` is not writable or the disk is full.
    """
    folder = cache_dir / f"random-{spec.name}-s{seed}-r{generator.version}"
    fingerprint = generator.fingerprint()
    if _is_current(folder, fingerprint):
        return folder
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with locked(cache_dir / f".{folder.name}.lock"):
            if not _is_current(folder, fingerprint):
                _make(folder, spec, seed, generator, fingerprint)
    except OSError as error:
        raise CheckpointError(
            f"random weights cannot be written to {cache_dir} ({error.strerror or error}): "
            "free some space or choose another cache folder with MYNAH_CACHE_DIR"
        ) from error
    return folder


def is_random(folder: Path) -> bool:
    """Whether `materialise` created `folder`."""
    return (folder / MANIFEST).is_file()


def _is_current(folder: Path, fingerprint: str) -> bool:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        whole = all((folder / name).stat().st_size == size for name, size in manifest["files"].items())
    except (OSError, ValueError, KeyError):
        return False
    return whole and manifest.get("fingerprint") == fingerprint


def _make(folder: Path, spec: ModelSpec, seed: int, generator: Generator, fingerprint: str) -> None:
    """Fill a temporary folder and rename it. The caller holds the lock, so existing temporary folders are stale."""
    for stale in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(stale)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir()
    _log.info("drawing random weights for %s into %s", spec.name, folder)
    try:
        generator.fill(partial, spec, seed)
        files = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
        manifest = {"model": spec.name, "seed": seed, "fingerprint": fingerprint, "files": files}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        if folder.exists():  # processes that have mapped its files keep their mappings
            folder.rename(folder.with_name(f".{folder.name}.old.partial"))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(folder.with_name(f".{folder.name}.old.partial"), ignore_errors=True)
