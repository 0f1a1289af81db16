"""The exported graphs say what the nets say, for any batch and length, and an export is what its manifest says."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engines.errors import InvalidInput
from engines.onnx.export_cache import MANIFEST, ExportError, cached_folder, sha256
from engines.onnx.session import ProviderMissing, SessionSettings, open_session
from engines.s3gen.export.block_graphs import BLOCK_GRAPHS
from engines.s3gen.export.check import TOLERANCE, CheckReport, check_graph, energy_error_db, frame_error, frames_of
from engines.s3gen.export.export import open_export
from engines.s3gen.export.graphs import (
    CFM,
    CFM_STEP,
    ENCODER,
    GRAPHS,
    VOCODER,
    Graph,
    random_inputs,
    run_torch,
    variant,
)
from engines.s3gen.export.precision import runs_in_fp16
from tests.engines.s3gen.onnx_setting import graphs, nets, tiny_export

CPU = SessionSettings(("cpu",), 1)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", [*GRAPHS, *BLOCK_GRAPHS])
def test_graph_agrees_with_its_net(name: str, precision: str) -> None:
    path = tiny_export(precision).path(name)
    report = check_graph(graphs()[name], nets()[name], path, padded=True, precision=precision)
    report.raise_if_bad(name)
    assert 0 < report.frame_error < TOLERANCE[precision]
    assert report.compared_rows >= 6


@pytest.mark.parametrize("name", list(GRAPHS))
def test_no_companion_and_no_pad_changes_a_row(name: str) -> None:
    graph, lengths = GRAPHS[name], [21, 9, 14]
    session = open_session(tiny_export().path(name), CPU)
    arrays = random_inputs(graph, lengths, seed=3)
    if "fixed_frames" in arrays:  # see check.py on why f0 is given
        arrays["fixed_frames"] = arrays[graph.lengths]
    together = session.run(None, arrays)
    for row, length in enumerate(lengths):
        sizes = graph.sizes(1, length)
        alone = session.run(
            None,
            {
                p.name: arrays[p.name][row : row + 1][
                    (slice(None), *(slice(sizes[a]) if isinstance(a, str) else slice(None) for a in p.axes[1:]))
                ]
                for p in graph.inputs
            },
        )
        for port, ours, single in zip(graph.outputs, together, alone, strict=True):
            owned = ours[row][tuple(slice(sizes[a]) if isinstance(a, str) else slice(None) for a in port.axes[1:])]
            np.testing.assert_allclose(owned, single[0], rtol=0, atol=2e-4 * max(1.0, float(np.abs(single).max())))


def own_part(graph: Graph, arrays: Mapping[str, Any], row: int) -> dict[str, Any]:
    """One row's inputs without its companions and without pads."""
    sizes = graph.sizes(1, int(arrays[graph.lengths][row]))
    prompt = int(arrays["prompt_lengths"][row])

    def place(axis: str | int, size: int) -> slice:
        if str(axis).startswith("prompt_"):
            return slice(size - prompt * (2 if axis == "prompt_frames" and graph.time == "tokens" else 1), None)
        return slice(sizes[str(axis)]) if axis in ("tokens", "frames") else slice(None)

    cut = {}
    for port in graph.inputs:
        array = arrays[port.name][row : row + 1] if port.axes[0] == "batch" else arrays[port.name]
        rest = zip(port.axes[1:], array.shape[1:], strict=True)
        cut[port.name] = array[(slice(None), *(place(axis, size) for axis, size in rest))]
    return cut


@pytest.mark.parametrize("name", BLOCK_GRAPHS)
def test_no_companion_and_no_pad_changes_a_block(name: str) -> None:
    graph, lengths = graphs()[name], [21, 9, 14]
    session = open_session(tiny_export().path(name), CPU)
    arrays = random_inputs(graph, lengths, seed=3)
    together = session.run(None, arrays)
    assert len(set(arrays["prompt_lengths"].tolist())) > 1
    for row, length in enumerate(lengths):
        alone = session.run(None, own_part(graph, arrays, row))
        for port, ours, single in zip(graph.outputs, together, alone, strict=True):
            a, b = frames_of(graph, port, ours[row], length), frames_of(graph, port, single[0], length)
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-4 * max(1.0, float(np.abs(b).max())))


def test_unrolled_cfm_is_its_step_taken_twice() -> None:
    arrays = random_inputs(CFM, [18, 7], seed=5)
    (whole,) = open_session(tiny_export().path("cfm"), CPU).run(None, arrays)
    step = open_session(tiny_export().path("cfm_step"), CPU)
    x = arrays.pop("noise")
    for t, r in ((0.0, 0.5), (0.5, 1.0)):
        (x,) = step.run(None, {**arrays, "x": x, "t": np.full(2, t, np.float32), "r": np.full(2, r, np.float32)})
    np.testing.assert_allclose(whole, x, atol=1e-5)


def test_unpadded_variant_has_no_lengths_and_the_same_result() -> None:
    arrays = random_inputs(CFM_STEP, [12, 12], seed=1)
    full = variant(CFM_STEP, nets()["cfm_step"], padded=False)
    ports = CFM_STEP.ports(padded=False)
    assert "lengths" not in [port.name for port in ports]
    (masked,) = open_session(tiny_export().path("cfm_step"), CPU).run(None, arrays)
    np.testing.assert_allclose(run_torch(full, arrays, ports)[0], masked, atol=1e-5)


def test_mixed_precision_keeps_what_must_be_exact_in_fp32() -> None:
    model = onnx.load(tiny_export("fp16").path("vocoder"))
    half = [node for node in model.graph.node if runs_in_fp16(node)]
    halves = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT16}
    assert len(half) > 50
    assert all(node.input[1] in halves for node in half)
    kept = [node for node in model.graph.node if "Conv" in node.op_type and node not in half]
    names = [node.name for node in kept]
    assert sum("f0_predictor" in name for name in names) == 5
    assert sum("f0_predictor" not in name for name in names) == 3  # Fourier transform, its inverse, its envelope
    assert not any(name in halves for node in kept for name in node.input)


def test_graphs_hold_no_weight_twice() -> None:
    for name in ("cfm", "cfm_step"):
        model = onnx.load(tiny_export().path(name))
        digests = [numpy_helper.to_array(i).tobytes() for i in model.graph.initializer if np.prod(i.dims) > 1000]
        assert len(set(digests)) == len(digests) > 20
    sizes = [tiny_export().path(name).stat().st_size for name in ("cfm", "cfm_step")]
    assert sizes[0] < 1.3 * sizes[1]  # two steps, one set of weights


@pytest.mark.parametrize("graph", [ENCODER, VOCODER], ids=lambda graph: graph.name)
def test_manifest_tells_ports_hashes_and_tolerances_reached(graph: object) -> None:
    made = tiny_export()
    name = graph.name  # type: ignore[attr-defined]
    entry = made.manifest["graphs"][name]
    session = open_session(made.path(name), CPU)
    assert list(entry["inputs"]) == [port.name for port in session.get_inputs()]
    assert list(entry["outputs"]) == [port.name for port in session.get_outputs()]
    assert entry["sha256"] == sha256(made.path(name)) == made.graph_hash(name)
    assert entry["check"]["frame_error"] < entry["check"]["tolerance"] == 1e-4
    assert {"weights", "opset", "exporter", "torch"} <= made.manifest.keys()


def test_cut_short_export_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_export().folder, folder)
    path = folder / "vocoder.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ExportError, match="cut short"):
        open_export(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(ExportError, match=MANIFEST):
        open_export(folder)


def test_failed_export_leaves_nothing_and_a_whole_one_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / MANIFEST).write_text("{}")

    def die(folder: Path) -> None:
        (folder / "half.onnx").write_text("x")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        cached_folder(tmp_path, "net", {"weights": "a"}, die)
    assert list(tmp_path.iterdir()) == []
    first = cached_folder(tmp_path, "net", {"weights": "a"}, make)
    assert cached_folder(tmp_path, "net", {"weights": "a"}, make) == first
    assert cached_folder(tmp_path, "net", {"weights": "b"}, make) != first
    assert len(made) == 2


def test_errors_are_judged_per_frame() -> None:
    good = np.random.default_rng(0).standard_normal((50, 480)).astype(np.float32)
    bad = good.copy()
    bad[17] *= 1.1
    assert frame_error(good, good) == 0
    assert frame_error(bad, good) == pytest.approx(0.1, rel=1e-3)
    assert energy_error_db(bad, good) == pytest.approx(0.828, rel=1e-2)
    bad[3, 5] = np.nan
    assert frame_error(bad, good) == float("inf")


@pytest.mark.parametrize(
    "report",
    [CheckReport("fp32", 2e-4, 0, 1, True), CheckReport("fp16", 0, 0.6, 1, True), CheckReport("fp32", 0, 0, 1, False)],
)
def test_bad_graph_is_refused(report: CheckReport) -> None:
    with pytest.raises(ExportError, match="Graph flow"):
        report.raise_if_bad("flow")


def test_missing_provider_is_an_error_and_never_the_cpu() -> None:
    with pytest.raises(ProviderMissing, match="tensorrt"):
        open_session(tiny_export().path("encoder"), SessionSettings(("tensorrt", "cpu"), 1))
    with pytest.raises(InvalidInput, match="tensorrt, cuda, cpu"):
        SessionSettings(("gpu",), 1)


def test_digest_is_found_without_a_place_to_remember_it(tmp_path: Path) -> None:
    weights, blocked = tmp_path / "weights", tmp_path / "blocked"
    weights.write_bytes(b"weights")
    blocked.write_text("a file where the folder would be")
    assert sha256(weights, memo_dir=blocked) == sha256(weights)
