"""The committed generated code is what the contract generates, and every part of the contract is commented."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

PROTOS = Path(__file__).parents[2] / "protos"
SOURCES = sorted(PROTOS.glob("mynah/v1/*.proto"))
INCLUDES = [f"-I{PROTOS}", f"-I{resources.files('grpc_tools') / '_proto'}"]


def run_protoc(*arguments: str) -> None:
    assert protoc.main(["protoc", *INCLUDES, *arguments, *map(str, SOURCES)]) == 0


def test_generated_code_is_up_to_date(tmp_path: Path):
    run_protoc(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}")
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*")}
    kept = {path.relative_to(PROTOS) for path in PROTOS.glob("mynah/v1/*_pb2*.py*")}
    assert made == kept
    assert len(made) == 3 * len(SOURCES)
    for path in made:
        assert (tmp_path / path).read_text() == (PROTOS / path).read_text(), f"{path} is stale: run `make proto`"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    output = tmp_path_factory.mktemp("descriptors") / "set.pb"
    run_protoc("--include_source_info", f"--descriptor_set_out={output}")
    return list(FileDescriptorSet.FromString(output.read_bytes()).file)


def paths(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Every service, method, message, field, oneof, enum and value, as its path in the source info and its name."""
    for s, service in enumerate(file.service):
        yield (6, s), service.name
        yield from (((6, s, 2, m), method.name) for m, method in enumerate(service.method))
    for m, message in enumerate(file.message_type):
        yield (4, m), message.name
        yield from message_paths((4, m), message)
    for e, enum in enumerate(file.enum_type):
        yield (5, e), enum.name
        yield from (((5, e, 2, v), value.name) for v, value in enumerate(enum.value))


def message_paths(path: tuple[int, ...], message: DescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    optional = {field.oneof_index for field in message.field if field.proto3_optional}
    for f, field in enumerate(message.field):
        yield (*path, 2, f), f"{message.name}.{field.name}"
    for o, oneof in enumerate(message.oneof_decl):
        if o not in optional:
            yield (*path, 8, o), f"{message.name}.{oneof.name}"


def test_everything_is_commented(files: list[FileDescriptorProto]):
    for file in files:
        comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        bare = [name for path, name in paths(file) if not comments.get(path, "").strip()]
        assert bare == []


def test_counts_and_units_stand_in_names(files: list[FileDescriptorProto]):
    fields = [field for file in files for message in file.message_type for field in message.field]
    floats = {field.name for field in fields if field.type in (field.TYPE_DOUBLE, field.TYPE_FLOAT)}
    ratios = {"temperature", "top_p", "repetition_penalty", "speech_share", "similarity", "speed", "load"}
    ratios |= {"min_p", "cfg_weight", "exaggeration", "min_p_default", "cfg_weight_default", "exaggeration_default"}
    assert all(name.endswith(("_s", "_db")) for name in floats - ratios)
    endings = ("_count", "_samples", "_hz", "_id", "_ids", "_number", "_index", "_size")
    whole = {field.name for field in fields if field.type in (field.TYPE_INT32, field.TYPE_INT64, field.TYPE_UINT64)}
    assert {name for name in whole if not name.endswith(endings)} == {"top_k", "seed"}


def test_fields_whose_default_is_not_zero_tell_absent_from_zero(files: list[FileDescriptorProto]):
    by_name = {message.name: message for file in files for message in file.message_type}
    for message, names in {
        "Sampling": {field.name for field in by_name["Sampling"].field},
        "SpeechSettings": {
            *("voice_id", "sample_rate_hz", "speed", "word_times", "word_guard", "continuity"),
            *("language_code", "cfg_weight", "exaggeration"),
        },
        "NewVoice": {"voice_id", "normalize_loudness"},
        "Cancelled": {"segment_index"},
    }.items():
        optional = {field.name for field in by_name[message].field if field.proto3_optional}
        assert optional == names
