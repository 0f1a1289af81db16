"""The published ONNX graphs of `ResembleAI/chatterbox-turbo-ONNX`: their files, inputs and outputs.

A folder is checked by the graphs' headers, before any weight is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engines.checkpoints.hub import Hub
from engines.errors import CheckpointError
from engines.model_spec import MEL_BANDS, SPEECH_VOCAB, X_VECTOR_DIM
from engines.text.tokenizer import TOKENIZER_FILES

if TYPE_CHECKING:
    from onnx import ValueInfoProto

REPOSITORY = "ResembleAI/chatterbox-turbo-ONNX"
NAME = "turbo-onnx"  # the repository's short name as a model
SPEECH_ENCODER, EMBED_TOKENS = "speech_encoder", "embed_tokens"
LANGUAGE_MODEL, CONDITIONAL_DECODER = "language_model", "conditional_decoder"
_GRAPHS = (SPEECH_ENCODER, EMBED_TOKENS, LANGUAGE_MODEL, CONDITIONAL_DECODER)
_PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)")
_KINDS = {"float32": 1, "int64": 7}  # onnx.TensorProto.FLOAT and INT64

Shape = tuple[int | None, ...]  # None: any size
Ports = Mapping[str, tuple[str, Shape]]  # name -> (dtype, shape)

_INPUTS: Mapping[str, Ports] = {
    SPEECH_ENCODER: {"audio_values": ("float32", (None, None))},
    EMBED_TOKENS: {"input_ids": ("int64", (None, None))},
    LANGUAGE_MODEL: {
        "inputs_embeds": ("float32", (None, None, None)),
        "attention_mask": ("int64", (None, None)),
        "position_ids": ("int64", (None, None)),
    },
    CONDITIONAL_DECODER: {
        "speech_tokens": ("int64", (None, None)),
        "speaker_embeddings": ("float32", (None, X_VECTOR_DIM)),
        "speaker_features": ("float32", (None, None, MEL_BANDS)),
    },
}
# The single output of a graph is read by its position, as in the publisher's own example.
_OUTPUTS: Mapping[str, Ports] = {
    SPEECH_ENCODER: {
        "audio_features": ("float32", (None, None, None)),
        "audio_tokens": ("int64", (None, None)),
        "speaker_embeddings": ("float32", (None, X_VECTOR_DIM)),
        "speaker_features": ("float32", (None, None, MEL_BANDS)),
    },
    EMBED_TOKENS: {},
    LANGUAGE_MODEL: {"logits": ("float32", (None, None, SPEECH_VOCAB))},
    CONDITIONAL_DECODER: {},
}


class PublishedGraphsError(CheckpointError):
    """A folder lacks files, or its graphs lack inputs or outputs. The message names all of them."""

    reason: str = "PUBLISHED_GRAPHS_MISMATCH"


@dataclass(frozen=True)
class PublishedGraphs:
    """A checked folder. Keys and values are (batch, heads, positions, head width) for each of the layers."""

    folder: Path
    graphs: Path
    layers: int
    heads: int
    head_width: int

    def path(self, name: str) -> Path:
        return self.graphs / f"{name}.onnx"


def find_published(model: str, hub: Hub) -> Path | None:
    """The folder of published graphs that `model` names, or None if it names something else.

    Names are `turbo-onnx`, the repository's id, and a folder with graphs in it or in its `onnx` folder. Raises
    CheckpointError as the hub does.
    """
    if model in (NAME, REPOSITORY):
        return _from_hub(hub)
    folder = Path(model).expanduser()
    return folder if model and folder.is_dir() and _graph_folder(folder) is not None else None


def open_published(folder: Path) -> PublishedGraphs:
    """The graphs in `folder`, their signatures checked. Raises PublishedGraphsError."""
    graphs = _graph_folder(folder) or folder
    missing = [f"{name}.onnx" for name in _GRAPHS if not (graphs / f"{name}.onnx").is_file()]
    if missing:
        raise PublishedGraphsError(f"{graphs}: {', '.join(missing)} missing; the published set has all of them")
    ports = {name: _read(graphs / f"{name}.onnx") for name in _GRAPHS}
    layers, past, present = _cache_ports(ports[LANGUAGE_MODEL][0])
    problems = [
        f"{name}.onnx: {problem}" for name in _GRAPHS for problem in _problems(name, ports[name], past, present)
    ]
    if problems:
        raise PublishedGraphsError(f"{graphs}: not the published graphs: " + "; ".join(problems))
    _, (_, heads, _, width) = ports[LANGUAGE_MODEL][0]["past_key_values.0.key"]
    assert heads is not None
    assert width is not None
    return PublishedGraphs(folder, graphs, layers, heads, width)


def _graph_folder(folder: Path) -> Path | None:
    places = (folder / "onnx", folder)
    return next((place for place in places if (place / f"{LANGUAGE_MODEL}.onnx").is_file()), None)


def _from_hub(hub: Hub) -> Path:
    graphs = [f"onnx/{name}.onnx" for name in _GRAPHS]
    files = (*graphs, *(f"{path}_data" for path in graphs), *TOKENIZER_FILES)
    whole = [folder for folder in hub.cached(REPOSITORY, files) if all((folder / path).is_file() for path in graphs)]
    return whole[0] if whole else hub.download(REPOSITORY, files)


def _read(path: Path) -> tuple[Ports, Ports]:
    """A graph's inputs and outputs, read without its weights."""
    import onnx  # the other models need none

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's own kinds
        raise PublishedGraphsError(f"{path}: not a readable ONNX file ({error})") from error
    weights = {tensor.name for tensor in graph.initializer}
    return {p.name: _port(p) for p in graph.input if p.name not in weights}, {p.name: _port(p) for p in graph.output}


def _port(value: ValueInfoProto) -> tuple[str, Shape]:
    kind = value.type.tensor_type
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    name = next((name for name, number in _KINDS.items() if number == kind.elem_type), str(kind.elem_type))
    return name, dims


def _cache_ports(inputs: Ports) -> tuple[int, Ports, Ports]:
    """The language model's number of layers, and the cache inputs and outputs that follow from it."""
    numbers = {int(match[1]) for name in inputs if (match := _PAST.fullmatch(name))}
    layers = max(numbers) + 1 if numbers else 1
    first = inputs.get("past_key_values.0.key", ("", ()))[1]
    heads, width = (first[1], first[3]) if len(first) == 4 else (None, None)
    shape = (None, heads, None, width)
    kinds = [(layer, kind) for layer in range(layers) for kind in ("key", "value")]
    past: Ports = {f"past_key_values.{layer}.{kind}": ("float32", shape) for layer, kind in kinds}
    return layers, past, {f"present.{layer}.{kind}": ("float32", shape) for layer, kind in kinds}


def _problems(name: str, ports: tuple[Ports, Ports], past: Ports, present: Ports) -> list[str]:
    cached = name == LANGUAGE_MODEL
    expected = {"input": {**_INPUTS[name], **(past if cached else {})}, "output": dict(_OUTPUTS[name])}
    if cached:
        expected["output"] |= present
    actual = dict(zip(("input", "output"), ports, strict=True))
    problems = [
        problem
        for side, expected_ports in expected.items()
        for port, signature in expected_ports.items()
        if (problem := _problem(side, port, signature, actual[side]))
    ]
    problems += [f"unknown input {port}" for port in actual["input"] if port not in expected["input"]]
    if not actual["output"]:
        problems.append("it has no output")
    if cached and not problems and None in (past_shape := past["past_key_values.0.key"][1])[1::2]:
        problems.append(f"past_key_values.0.key has shape {past_shape}: heads and head width must be fixed")
    return problems


def _problem(side: str, name: str, expected: tuple[str, Shape], ports: Ports) -> str:
    """The fault of an input or output, or ""."""
    if name not in ports:
        return f"{side} {name} is missing (it has {', '.join(ports) or 'none'})"
    dtype, shape = ports[name]
    expected_dtype, expected_shape = expected
    fits = len(shape) == len(expected_shape) and all(
        None in pair or pair[0] == pair[1] for pair in zip(shape, expected_shape, strict=True)
    )
    if dtype == expected_dtype and fits:
        return ""
    return f"{side} {name} is {dtype} {shape}, expected {expected_dtype} {expected_shape}"
