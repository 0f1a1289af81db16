"""Every graph really builds into an engine for the A10G without a GPU, and only the right engine is ever found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engines.s3gen.export.export import ExportError
from engines.s3gen.export.graphs import CFM, ENCODER, GRAPHS, VOCODER
from engines.s3gen.gpu import build
from engines.s3gen.gpu.buckets import Bucket, buckets
from engines.s3gen.gpu.build import ENGINE_GRAPHS, BuildSettings, build_engine, build_engines, identity
from engines.s3gen.gpu.engine_file import EngineFileRefused, EngineIdentity, find_engine, write_engine
from engines.s3gen.gpu.trt import TensorRTMissing, load_tensorrt
from tests.engines.s3gen.onnx_setting import tiny_export

IDENTITY = EngineIdentity("cfm", "ab" * 32, "sm86", "tensorrt_rtx 1.7", "fp16", "cd" * 32)


@pytest.mark.parametrize(("name", "precision"), [*((name, "fp16") for name in ENGINE_GRAPHS), ("encoder", "fp32")])
def test_graph_builds_for_the_a10g(name: str, precision: str) -> None:
    graph, trt = GRAPHS[name], load_tensorrt("tensorrt_rtx")
    small = Bucket((1, 2, 4), (4, 16, 64))  # every profile more costs as much time again
    engine = build_engine(tiny_export(precision).path(name), graph, [small], BuildSettings("sm86"), trt)
    assert engine.nbytes > 100_000


def test_engines_are_built_once_and_again_for_another_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt, made = load_tensorrt("tensorrt_rtx"), tiny_export()
    built: list[str] = []

    def fake_build(path: Path, *_: object) -> bytes:
        built.append(path.stem)
        return b"engine"

    monkeypatch.setattr(build, "build_engine", fake_build)
    first = build_engines(made, tmp_path, BuildSettings("sm86"), trt)
    assert build_engines(made, tmp_path, BuildSettings("sm86"), trt) == first
    assert built == list(ENGINE_GRAPHS)
    build_engines(made, tmp_path, BuildSettings("sm89"), trt)
    assert built == 2 * list(ENGINE_GRAPHS)
    assert all("sm86" in path.name and trt.version in path.name for path in first.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [("graph_hash", "ef" * 32), ("architecture", "sm89"), ("tensorrt", "tensorrt 10.13"), ("precision", "fp32")],
)
def test_stale_or_foreign_engine_is_refused_with_reason_and_command(tmp_path: Path, field: str, value: str) -> None:
    write_engine(tmp_path, IDENTITY, b"program")
    assert find_engine(tmp_path, IDENTITY).read_bytes() == b"program"
    wanted = replace(IDENTITY, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(
        EngineFileRefused, match=rf"(?s){field}.*mynah-engines build --model nano --arch {wanted.architecture}"
    ):
        find_engine(tmp_path, wanted, model="nano")


def test_renamed_foreign_engine_is_refused(tmp_path: Path) -> None:
    foreign = replace(IDENTITY, graph_hash="ab" * 31 + "ff")  # the same first digits, so the same file name
    write_engine(tmp_path, foreign, b"program")
    with pytest.raises(EngineFileRefused, match="graph_hash"):
        find_engine(tmp_path, IDENTITY)


def test_damaged_or_unfinished_engine_is_refused(tmp_path: Path) -> None:
    path = write_engine(tmp_path, IDENTITY, b"program")
    path.write_bytes(b"progrxm")
    with pytest.raises(EngineFileRefused, match="damaged"):
        find_engine(tmp_path, IDENTITY)
    path.with_name(path.name + ".json").unlink()
    with pytest.raises(EngineFileRefused, match="record"):
        find_engine(tmp_path, IDENTITY)
    with pytest.raises(EngineFileRefused, match="no engine for cfm"):
        find_engine(tmp_path / "empty", IDENTITY)


def test_buckets_cover_every_window_that_is_decoded() -> None:
    for new_tokens in (1, 10, 25, 50):
        for batch in (1, 2, 3, 16):
            tokens = 250 + 50 + new_tokens + 3
            assert any(b.holds(batch, tokens) for b in buckets(ENCODER))
            assert any(b.holds(batch, 2 * tokens) for b in buckets(CFM))
            assert any(b.holds(batch, 2 * new_tokens + 34) for b in buckets(VOCODER))
    assert any(b.holds(1, 250 + 1003) for b in buckets(ENCODER))
    with pytest.raises(ValueError, match="must not decrease"):
        Bucket((2, 1, 3), (1, 1, 1))


def test_what_cannot_be_parsed_is_told(tmp_path: Path) -> None:
    bad = tmp_path / "encoder.onnx"
    bad.write_bytes(b"not onnx")
    with pytest.raises(ExportError, match=r"encoder\.onnx"):
        build_engine(bad, ENCODER, buckets(ENCODER), BuildSettings(), load_tensorrt("tensorrt_rtx"))
    with pytest.raises(ValueError, match="sm86"):
        BuildSettings("sm999")
    with pytest.raises(TensorRTMissing, match="pip install"):
        load_tensorrt("tensorrt_not_installed")


def test_identity_names_graph_gpu_tensorrt_and_precision() -> None:
    trt = load_tensorrt("tensorrt_rtx")
    made = identity(tiny_export(), "vocoder", BuildSettings("sm86"), trt)
    assert made.graph_hash == tiny_export().graph_hash("vocoder")
    assert (made.architecture, made.precision, made.tensorrt) == ("sm86", "fp32", f"tensorrt_rtx {trt.version}")
