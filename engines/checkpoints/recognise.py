"""Which model a checkpoint folder holds: by the name of T3's file, or by the shapes in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from engines.checkpoints.tensor_file import TensorInfo, read_header
from engines.errors import CheckpointError
from engines.model_spec import MODELS, MULTILINGUAL, NANO, STANDARD, TURBO, ModelSpec

_PUBLISHED = (TURBO, NANO, STANDARD, MULTILINGUAL)  # whose fine-tunes are recognised by their shapes


def t3_files(names: Iterable[str]) -> list[str]:
    """Returns the names that may be T3's weights."""
    return sorted(name for name in names if name.startswith("t3") and name.endswith(".safetensors"))


def recognise(folder: Path, wanted: ModelSpec | None = None) -> tuple[ModelSpec, str]:
    """Returns the model in `folder` and the name of T3's file.

    A file of a known name is that model's. Another one is a fine-tune of the model whose layers and width it has, with
    as many text tokens as its embedding has rows. Raises CheckpointError if there is none or no single one; `wanted`
    decides between several.
    """
    if wanted is not None and (folder / wanted.t3_file).is_file():
        return wanted, wanted.t3_file
    known = [spec for spec in MODELS.values() if (folder / spec.t3_file).is_file()]
    if len(known) == 1 and wanted is None:
        return known[0], known[0].t3_file
    others = t3_files(path.name for path in folder.glob("*.safetensors"))
    if len(known) > 1 or len(others) != 1:
        raise _not_one(folder, known)
    spec = _by_shapes(folder / others[0])
    if spec is None or (wanted is not None and spec.is_llama != wanted.is_llama):
        raise _not_one(folder, known)
    return (spec if wanted is None else replace(wanted, t3=spec.t3)), others[0]


def _by_shapes(path: Path) -> ModelSpec | None:
    infos = read_header(path)
    text = infos.get("text_emb.weight")
    if text is None or len(text.shape) != 2:
        return None
    rows, width = text.shape
    for spec in _PUBLISHED:
        if width == spec.t3.width and _layers(infos) == (spec.is_llama, spec.t3.layers):
            if not spec.is_llama or rows == spec.t3.text_vocab:
                return spec
            if rows > STANDARD.t3.text_vocab:
                return replace(MULTILINGUAL, t3=replace(MULTILINGUAL.t3, text_vocab=rows))
    return None


def _layers(infos: dict[str, TensorInfo]) -> tuple[bool, int]:
    """Whether it is Llama, and its number of layers."""
    llama = {name.split(".")[2] for name in infos if name.startswith("tfmr.layers.")}
    gpt = {name.split(".")[2] for name in infos if name.startswith("tfmr.h.")}
    return bool(llama), len(llama or gpt)


def _not_one(folder: Path, known: list[ModelSpec]) -> CheckpointError:
    expected = ", ".join(spec.t3_file for spec in MODELS.values())
    existing = sorted(path.name for path in folder.glob("*.safetensors"))
    hint = f"; choose with {known[0].name}:FOLDER" if known else ""
    return CheckpointError(
        f"{folder}: exactly one of {expected} is expected, found {', '.join(existing) or 'none'}{hint}"
    )
