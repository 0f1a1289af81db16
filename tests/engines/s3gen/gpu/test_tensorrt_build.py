"""Every graph really builds into an engine for the A10G without a GPU, and only the right engine is ever found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from engines.s3gen.export.export import ExportError
from engines.s3gen.export.graphs import CFM, ENCODER, GRAPHS, VOCODER
from engines.s3gen.gpu import build
from engines.s3gen.gpu.buckets import Bucket, buckets, max_rows, on_grid
from engines.s3gen.gpu.build import ENGINE_GRAPHS, BuildSettings, build_engine, build_engines, identity
from engines.s3gen.gpu.cuda import Gpu
from engines.s3gen.gpu.engine_file import EngineFileRefused, EngineIdentity, find_engine, write_engine
from engines.s3gen.gpu.trt import TensorRT, TensorRTMissing, load_tensorrt
from engines.s3gen.streaming.schedule import SCHEDULES
from engines.tools import export as export_tool
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
    [
        ("graph_hash", "ef" * 32),
        ("architecture", "sm89"),
        ("tensorrt", "tensorrt 10.13"),
        ("precision", "fp32"),
        ("profiles", "ef" * 32),
        ("gpu", "NVIDIA L4"),
    ],
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
    steps = {step for schedule in SCHEDULES.values() for step in schedule.steps}
    for block in (1, *(step.block_tokens for step in steps)):
        for batch in (1, 2, 3, 16):  # the largest hops too: they are taken under load, when batches are full
            _, tokens = on_grid(ENCODER, batch, 250 + 50 + block)
            _, frames = on_grid(VOCODER, batch, 2 * block + 34)
            assert max_rows(buckets(ENCODER), tokens) == 16
            assert any(b.holds(batch, tokens) for b in buckets(ENCODER))
            assert any(b.holds(batch, 2 * tokens) for b in buckets(CFM))
            assert max_rows(buckets(VOCODER), frames) == 16
            assert any(b.holds(batch, frames) for b in buckets(VOCODER))
    assert any(b.holds(1, 250 + 1003) for b in buckets(ENCODER))
    with pytest.raises(ValueError, match="must not decrease"):
        Bucket((2, 1, 3), (1, 1, 1))


def test_what_cannot_be_parsed_is_told(tmp_path: Path) -> None:
    bad = tmp_path / "encoder.onnx"
    bad.write_bytes(b"not onnx")
    with pytest.raises(ExportError, match=r"encoder\.onnx"):
        build_engine(bad, ENCODER, buckets(ENCODER), BuildSettings(), load_tensorrt("tensorrt_rtx"))
    with pytest.raises(ValueError, match="sm86"):
        BuildSettings("turing")
    with pytest.raises(TensorRTMissing, match="pip install"):
        load_tensorrt("tensorrt_not_installed")


def test_float32_keeps_all_its_bits_and_no_kernel_allocates() -> None:
    """TF32 is on by default, and a capture must not allocate."""
    trt = load_tensorrt("tensorrt_rtx")
    flags = trt.module.BuilderFlag
    builder = trt.module.Builder(trt.module.Logger())
    assert builder.create_builder_config().get_flag(flags.TF32)
    config = build._config(builder, BuildSettings("sm86"), trt)
    assert not config.get_flag(flags.TF32)
    assert config.get_flag(flags.REQUIRE_USER_ALLOCATION)
    assert config.max_aux_streams == 0, "streams of TensorRT's own are no part of ours"


def test_standard_tensorrts_engines_are_for_one_kind_of_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An L4 and an L40S are both sm89, and may share a folder. RTX's engines run on both."""
    standard = TensorRT("tensorrt", SimpleNamespace(__version__="10.13.3.9"))
    monkeypatch.setattr(build, "build_engine", lambda *_: b"engine")
    for trt, equal in ((standard, False), (load_tensorrt("tensorrt_rtx"), True)):
        l4, l40s = (
            build_engines(tiny_export(), tmp_path, BuildSettings("sm89", gpu=f"NVIDIA {name}"), trt)
            for name in ("L4", "L40S")
        )
        assert (l4 == l40s) is equal


def test_an_engine_that_was_built_otherwise_is_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = load_tensorrt("tensorrt_rtx")
    before = identity(tiny_export(), "cfm", BuildSettings(), trt)
    monkeypatch.setattr(build, "_HOW", "with TF32")
    assert identity(tiny_export(), "cfm", BuildSettings(), trt).file_name != before.file_name


def test_standard_tensorrt_builds_for_this_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another name on its engine would be a lie that crashes another machine."""
    monkeypatch.setattr(export_tool, "probe", lambda: Gpu(0, "NVIDIA A10G", "sm86", 24 << 30))
    assert export_tool._builds_for("sm86") == "NVIDIA A10G"
    with pytest.raises(ExportError, match=r"NVIDIA A10G is sm86.*--arch sm86"):
        export_tool._builds_for("sm89")


@pytest.mark.parametrize("architecture", ["sm90", "sm100", "sm86"])
def test_standard_tensorrt_builds_for_every_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    monkeypatch.setattr(build, "build_engine", lambda *_: b"engine")
    standard = TensorRT("tensorrt", SimpleNamespace(__version__="10.13.3.9"))
    paths = build_engines(tiny_export(), tmp_path, BuildSettings(architecture), standard)
    assert all(architecture in path.name for path in paths.values())


def test_what_rtx_cannot_build_for_is_an_error_that_says_what_can(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"does not support sm90, only sm75.*install tensorrt-cu12"):
        build_engines(tiny_export(), tmp_path, BuildSettings("sm90"), load_tensorrt("tensorrt_rtx"))


def test_operators_are_those_that_tensorrt_10_has_as_layers() -> None:
    """No loops and no conditions: a graph capture does not survive them."""
    for name in ENGINE_GRAPHS:
        model = onnx.load(str(tiny_export("fp16").path(name)), load_external_data=False)
        assert not {node.op_type for node in model.graph.node} & {"Loop", "If", "Scan", "NonZero", "STFT", "DFT"}, name


def test_identity_names_graph_gpu_tensorrt_and_precision() -> None:
    trt = load_tensorrt("tensorrt_rtx")
    made = identity(tiny_export(), "vocoder", BuildSettings("sm86"), trt)
    assert made.graph_hash == tiny_export().graph_hash("vocoder")
    assert (made.architecture, made.precision, made.tensorrt) == ("sm86", "fp32", f"tensorrt_rtx {trt.version}")
