"""How long S3Gen's stages take on this machine, and how long their arithmetic alone would.

Knows runtimes, windows of usual sizes and the operation counts of the full-size nets; draws no conclusion.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from engines.config import MEL_BANDS, MEL_HOP_SAMPLES, SPEECH_CODES, X_VECTOR_DIM
from engines.s3gen.runtime import FlowBatch, Runtime, VocoderBatch

# Stated goals at p50 for one window on an A10G; T3 and the whole pipeline are measured by bench-stream.
TARGETS_A10G_MS = {"S3Gen": 250.0, "T3": 80.0, "pipeline": 380.0}
_PROMPT_TOKENS = 250
# name: (rows, new tokens with context and lookahead, vocoder frames)
WINDOWS = {"hop12": (1, 15, 38), "hop25": (1, 78, 62), "hop25x8": (8, 78, 62), "offline10s": (1, 253, 506)}
# Fitted to the full-size nets' counted operations at 275, 350 and 500 tokens (253, 348 and 573 GFLOP); attention
# grows with the square of the length.
_FLOW_GFLOP_PER_TOKEN, _FLOW_GFLOP_PER_TOKEN_SQUARED = 0.642, 1.01e-3
_VOCODER_GFLOP_PER_FRAME = 30.6 / 50


@dataclass(frozen=True)
class Machine:
    """`gflops`: what one large fp32 matrix product reaches, or what the caller says."""

    name: str
    gflops: float


def machine(threads: int, gflops: float | None = None) -> Machine:
    """This machine's name and speed."""
    on_gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if on_gpu else f"a CPU, {threads} threads"
    return Machine(name, gflops or _matrix_product_gflops("cuda" if on_gpu else "cpu"))


def _matrix_product_gflops(device: str, size: int = 1024) -> float:
    a = torch.randn(size, size, device=device)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        float((a @ a)[0, 0])  # waits for a GPU
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times) / 1e9


def stage_calls(runtime: Runtime, windows: Sequence[str]) -> dict[str, Callable[[], object]]:
    """flow-WINDOW and vocoder-WINDOW for each of `windows`, each a call with its inputs ready."""
    calls: dict[str, Callable[[], object]] = {}
    for name in windows:
        rows, new, frames = WINDOWS[name]
        flow, vocoder = flow_batch(rows, _PROMPT_TOKENS + new), vocoder_batch(rows, frames)
        calls[f"flow-{name}"] = partial(runtime.flow, flow)
        calls[f"vocoder-{name}"] = partial(runtime.vocoder, vocoder)
    return calls


def flow_batch(rows: int, tokens: int) -> FlowBatch:
    """Full rows whose first tokens are a voice's prompt."""
    rng = np.random.default_rng(0)
    prompt = 2 * min(_PROMPT_TOKENS, tokens - 1)
    prompt_mel = np.zeros((rows, 2 * tokens, MEL_BANDS), np.float32)
    prompt_mel[:, :prompt] = rng.standard_normal((rows, prompt, MEL_BANDS)) * 2 - 5
    return FlowBatch(
        rng.integers(0, SPEECH_CODES, (rows, tokens)),
        np.full(rows, tokens, np.int64),
        prompt_mel,
        rng.standard_normal((rows, 2 * tokens, MEL_BANDS), np.float32),
        rng.standard_normal((rows, X_VECTOR_DIM), np.float32),
    )


def vocoder_batch(rows: int, frames: int) -> VocoderBatch:
    """Full rows with nothing settled yet."""
    rng = np.random.default_rng(0)
    return VocoderBatch(
        (rng.standard_normal((rows, frames, MEL_BANDS)) * 2 - 5).astype(np.float32),
        np.full(rows, frames, np.int64),
        np.zeros((rows, frames), np.float32),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.float32),
        np.zeros((rows, 9), np.float32),
        rng.standard_normal((rows, MEL_HOP_SAMPLES * frames), np.float32),
    )


def measure(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """p50 and p90 in milliseconds, after one unmeasured call."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return {"p50_ms": float(np.percentile(times, 50)), "p90_ms": float(np.percentile(times, 90))}


def roofline_ms(stage: str, here: Machine) -> float:
    """The arithmetic of a full-size stage at this machine's speed; other sizes of the model need other figures."""
    kind, window = stage.split("-")
    rows, new, frames = WINDOWS[window]
    tokens = _PROMPT_TOKENS + new
    per_row = (
        tokens * (_FLOW_GFLOP_PER_TOKEN + _FLOW_GFLOP_PER_TOKEN_SQUARED * tokens)
        if kind == "flow"
        else frames * _VOCODER_GFLOP_PER_FRAME
    )
    return 1000 * rows * per_row / here.gflops


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """One line per stage; `share` is of the p50s of its window."""
    total = {window: sum(v["p50_ms"] for k, v in rows.items() if k.endswith(f"-{window}")) for window in WINDOWS}
    lines = [f"{'stage':20} {'p50 ms':>10} {'p90 ms':>10} {'roofline ms':>12} {'share':>7}"]
    for name, row in rows.items():
        share = row["p50_ms"] / total[name.split("-")[1]]
        lines.append(f"{name:20} {row['p50_ms']:10.1f} {row['p90_ms']:10.1f} {row['roofline_ms']:12.1f} {share:7.0%}")
    return "\n".join(lines)
