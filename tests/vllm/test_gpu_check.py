"""The step of `make gpu-check` about vLLM, rehearsed on its CPU build: no minute of a GPU is lost to a typing error."""

from __future__ import annotations

from pathlib import Path

from bench.gpu import steps
from bench.gpu.results import ABSENT, MEASURED, PASSED, Recorder, read


def test_the_step_runs_to_its_end(tmp_path: Path) -> None:
    steps.run("vllm", Recorder(tmp_path, "vllm"), "cpu", "random:tiny", tmp_path)
    results = {result.name: result for result in read(tmp_path)}
    assert {result.status for result in results.values()} == {ABSENT, MEASURED, PASSED}
    assert results["full CUDA graphs"].status == ABSENT
    assert sum(name.startswith("logits, ") for name in results) == 3
    for name in ("start", "KV cache", "step, 2 streams", "sampler's share of a step", "rebuilt under load, warm"):
        value = results[name].value
        assert value is not None
        assert value > 0, name
    share = results["sampler's share of a step"].value
    assert share is not None
    assert share < 100
    assert results["it speaks again"].status == PASSED
