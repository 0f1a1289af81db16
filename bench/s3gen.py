"""`make bench-s3gen`: the runtimes of S3Gen and T3 against the published package on one checkpoint, in one run.

Same threads and inputs; float32 except T3's 8-bit weights. All sides of a case take turns, so that other load on the
machine affects them alike. The goals are ONNX Runtime's, as ratios to the published package.

Expected before the first run on two cores with random:nano: T3's step is bound by memory bandwidth, which MLAS
and oneDNN both reach, so onnx and torch alike at 0.45 of upstream and 8 bits at 0.2; S3Gen offline is bound by
arithmetic at which upstream is already good, 0.85; a window does the same work on fewer rows, 0.75.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain

import numpy as np
import torch

from bench.report import BUILD, publish, table
from engines.checkpoints.checkpoint import Checkpoint, open_checkpoint
from engines.checkpoints.tensor_file import write_tensors
from engines.conditioning.builder import VoiceBuilder
from engines.conditioning.builtin import load_builtin
from engines.conditioning.random_weights import random_tensors as voice_tensors
from engines.conditioning.reference import load_reference
from engines.config import S3GEN_STEPS
from engines.kernels.dense import WeightFormat
from engines.model_spec import with_guided_flow, with_meanflow
from engines.s3gen.flow_steps import with_steps
from engines.s3gen.random_weights import random_tensors
from engines.s3gen.runtime import CachedRuntime, Runtime
from engines.s3gen.runtimes.onnx import OnnxRuntime
from engines.s3gen.runtimes.onnx_cached import OnnxCachedRuntime
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.s3gen.streaming.segment_decoder import CachedRow, collate_cached
from engines.t3.model import T3Net
from engines.t3.onnx.export import open_onnx_net
from engines.tools.s3gen_times import flow_batch, vocoder_batch
from engines.tools.t3_times import PREFILL_POSITIONS, STEP_POSITIONS, t3_calls
from engines.voice import Voice

HOP = "S3Gen window, hop 25"
# name: (prompt, new tokens with context and lookahead, frames of the vocoder, context frames at its two ends)
WINDOWS = {
    "S3Gen first window, 12 tokens": (250, 15, 30, (0, 5)),
    HOP: (250, 78, 70, (14, 5)),
    "S3Gen offline, 10 s": (250, 253, 506, (0, 0)),
}
FEW_POSITIONS = 16
T3_STEP, T3_STEP_FEW = f"T3 step at {STEP_POSITIONS}", f"T3 step at {FEW_POSITIONS}"
T3_PREFILL = f"T3 prefill of {PREFILL_POSITIONS}"
STEPS = f"{HOP}: flow in 10 guided and in 2 meanflow steps"
BLOCK = (25, 3)  # new and lookahead tokens of the hop 25 window with everything before it cached
CLONE, CLIP_S = "voice conditioning, 10 s", 10.0
_DEFAULTS = {"onnx": "torch", "onnx cached": "torch cached", "onnx fp32": "torch fp16"}
# over upstream
GOALS = {
    (T3_STEP_FEW, "onnx fp32"): 0.45,
    (T3_STEP_FEW, "onnx int8"): 0.2,
    (T3_STEP, "onnx fp32"): 0.45,
    (T3_STEP, "onnx int8"): 0.2,
    ("S3Gen offline, 10 s", "onnx"): 0.85,
    (HOP, "onnx"): 0.75,
    (HOP, "onnx cached"): 0.15,
    (CLONE, "ours"): 0.5,
}
# The defaults of a server on a CPU have the same goals.
GOALS |= {(case, _DEFAULTS[runtime]): goal for (case, runtime), goal in GOALS.items() if runtime in _DEFAULTS}
Calls = Mapping[str, Callable[[], object]]


def alternate(calls: Calls, repeats: int, *, run: int = 1) -> dict[str, float]:
    """Median seconds of each call. The calls take turns, after one unmeasured turn; a turn is `run` calls."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(run):
                call()
            if turn:
                times[name].append((time.perf_counter() - start) / run)
    return {name: statistics.median(values) for name, values in times.items()}


def s3gen_cases(checkpoint: Checkpoint, threads: int) -> dict[str, Calls]:
    torch_runtime = TorchRuntime(checkpoint)
    onnx = OnnxRuntime(checkpoint, threads=threads, vocoder=torch_runtime)  # as on a server with a CPU
    runtimes: dict[str, Runtime] = {"torch": torch_runtime, "onnx": onnx}
    theirs = UpstreamS3Gen(checkpoint)
    cases: dict[str, Calls] = {}
    for name, (prompt, new, frames, _) in WINDOWS.items():
        flow = flow_batch(1, prompt + new)
        flows: Calls = {key: (lambda r=r, b=flow: r.flow(b)) for key, r in runtimes.items()}
        cases[f"{name}: flow"] = {"upstream": lambda n=new: theirs.flow(n), **flows}
        cases[f"{name}: vocoder"] = {"upstream": lambda n=frames: theirs.vocoder(n), **renderings(runtimes, name)}
    assert checkpoint.conds_path is not None
    voice = load_builtin(checkpoint.conds_path)
    cached = {
        "torch cached": TorchCachedRuntime(torch_runtime),
        "onnx cached": OnnxCachedRuntime(checkpoint, torch_runtime, threads=threads),
    }
    hop = {key: block_call(runtime, voice) for key, runtime in cached.items()}
    cases[f"{HOP}: flow"] = {**cases[f"{HOP}: flow"], **hop}
    cases[f"{HOP}: vocoder"] = {**cases[f"{HOP}: vocoder"], **renderings(cached, HOP)}
    return cases


def steps_cases(checkpoint: Checkpoint) -> dict[str, Calls]:
    """The flow of hop 25 on both kinds of nets of the same dimensions, beside the package's ten guided steps."""
    prompt, new, _, _ = WINDOWS[HOP]
    batch, kinds = flow_batch(1, prompt + new), {f"{twin.spec.flow.steps} steps": twin for twin in twins(checkpoint)}
    nets = {name: TorchRuntime(twin) for name, twin in kinds.items()}
    theirs = UpstreamS3Gen(kinds["10 steps"])
    assert checkpoint.conds_path is not None
    voice = load_builtin(checkpoint.conds_path)
    window: Calls = {name: (lambda r=r: r.flow(batch)) for name, r in nets.items()}
    blocks = {f"{name}, cached": TorchCachedRuntime(r) for name, r in nets.items()}
    calls = {name: block_call(runtime, voice) for name, runtime in blocks.items()}
    prompt = len(voice.s3gen_prompt_tokens)
    for name, runtime in blocks.items():
        print(f"{name}: {runtime.cache_bytes / 1e6:.0f} MB for a voice of {prompt} tokens and a stream")
    return {STEPS: {"upstream": lambda: theirs.flow(new), **window, **calls}}


def twins(checkpoint: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """The model with guided and with meanflow nets; those that its folder lacks are drawn."""
    made = []
    for spec in (with_guided_flow(checkpoint.spec), with_meanflow(checkpoint.spec)):
        twin = replace(checkpoint, spec=spec)
        if not twin.s3gen_path.is_file():
            folder = BUILD / f"{spec.name}-{spec.flow.steps}-steps"
            folder.mkdir(parents=True, exist_ok=True)
            write_tensors(folder / spec.s3gen_name, chain(random_tensors(spec, 0), voice_tensors(spec, 0)))
            shutil.copy(checkpoint.folder / "conds.pt", folder)
            twin = replace(twin, folder=folder)
        made.append(twin)
    return made[0], made[1]


def renderings(runtimes: Mapping[str, Runtime], window: str) -> Calls:
    """The vocoder's call for one of WINDOWS on each runtime."""
    _, _, frames, margins = WINDOWS[window]
    batch = replace(vocoder_batch(1, frames), margins=margins)
    return {name: (lambda r=runtime: r.vocoder(batch)) for name, runtime in runtimes.items()}


def block_call(runtime: CachedRuntime, voice: Voice) -> Callable[[], object]:
    """A call that decodes and commits one block of a stream whose context is full."""
    new, ahead = BLOCK
    cache, rng = runtime.begin(voice), np.random.default_rng(0)

    def call() -> None:
        speech_tokens = rng.integers(0, 6561, new + ahead)
        noise = rng.standard_normal((2 * (new + ahead), 80), np.float32)
        runtime.flow_cached(collate_cached([CachedRow(speech_tokens, new, noise, cache)]))
        cache.commit(new)

    for _ in range(-(-runtime.context_tokens // new)):
        call()
    return call


def t3_cases(checkpoint: Checkpoint, threads: int) -> dict[str, Calls]:
    formats: dict[str, WeightFormat] = {"torch fp32": "float32", "torch fp16": "float16", "torch int8": "int8"}
    nets: dict[str, T3Net] = {
        name: T3Net.load(checkpoint.t3_path, checkpoint.spec, torch.device("cpu"), weights=weights)
        for name, weights in formats.items()
    }
    nets |= {f"onnx {p}": open_onnx_net(checkpoint, p, threads=threads) for p in ("fp32", "int8")}
    ours = {name: t3_calls(net) for name, net in nets.items()}
    early = {name: t3_calls(net, step_positions=FEW_POSITIONS) for name, net in nets.items()}
    theirs, theirs_early = UpstreamT3(checkpoint, STEP_POSITIONS), UpstreamT3(checkpoint, FEW_POSITIONS)
    return {
        T3_STEP_FEW: {"upstream": theirs_early.step, **{name: calls["step"] for name, calls in early.items()}},
        T3_STEP: {"upstream": theirs.step, **{name: calls["step"] for name, calls in ours.items()}},
        T3_PREFILL: {
            "upstream": lambda: theirs.prefill(PREFILL_POSITIONS),
            **{name: calls["prefill"] for name, calls in ours.items()},
        },
    }


def voice_cases(checkpoint: Checkpoint) -> dict[str, Calls]:
    """Ours with the recording decoded in this process, like upstream, and in its own process, like a server."""
    from safetensors.torch import load_file

    from tests.clips import speech, wav_bytes
    from tests.reference import test_voice, upstream

    s3gen, encoder = upstream.s3gen(checkpoint.spec), upstream.voice_encoder(checkpoint.spec)
    s3gen.load_state_dict(load_file(checkpoint.s3gen_path))
    encoder.load_state_dict(load_file(checkpoint.voice_encoder_path))
    theirs = test_voice.Pair(checkpoint.spec, checkpoint.folder, s3gen, encoder)
    audio, file = wav_bytes(*speech(CLIP_S)), BUILD / "clip.wav"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(audio)
    here, apart = VoiceBuilder(checkpoint, decode=load_reference), VoiceBuilder(checkpoint)
    return {
        CLONE: {
            "upstream": lambda: theirs.upstream_voice(file),
            "ours": lambda: here.build(audio, "clip"),
            "ours, decoded apart": lambda: apart.build(audio, "clip"),
        }
    }


class UpstreamS3Gen:
    """The published package's flow and vocoder, behind the checkpoint's built-in voice of 250 prompt tokens."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from safetensors.torch import load_file

        from tests.reference import upstream

        assert checkpoint.conds_path is not None
        self._s3gen = upstream.s3gen(checkpoint.spec)
        self._s3gen.load_state_dict(load_file(checkpoint.s3gen_path))
        self._voice = torch.load(checkpoint.conds_path, weights_only=True)["gen"]
        self._steps = checkpoint.spec.flow.steps

    def flow(self, new_tokens: int) -> object:
        speech_tokens = torch.randint(0, 6561, (new_tokens,))
        return self._s3gen.flow_inference(
            speech_tokens, ref_dict=dict(self._voice), n_cfm_timesteps=self._steps, finalize=True
        )

    def vocoder(self, frames: int) -> object:
        return self._s3gen.hift_inference(torch.randn(1, 80, frames) * 2 - 5)


class UpstreamT3:
    """The published package's net: transformers' GPT-2 with its cache, and the speech head; no sampling."""

    def __init__(self, checkpoint: Checkpoint, positions: int) -> None:
        from safetensors.torch import load_file

        from tests.reference import upstream

        self._t3 = upstream.t3(checkpoint.spec)
        self._t3.load_state_dict(load_file(checkpoint.t3_path))
        self._past = self._read(positions, None)

    @torch.inference_mode()
    def _read(self, rows: int, past: object) -> object:
        embeddings = torch.zeros(1, rows, self._t3.cfg.hidden_size)
        outputs = self._t3.tfmr(inputs_embeds=embeddings, past_key_values=past, use_cache=True)
        self._t3.speech_head(outputs[0][:, -1:])
        return outputs.past_key_values

    def prefill(self, positions: int) -> None:
        self._read(positions, None)

    def step(self) -> None:
        """One more row behind the same past, which is a tuple, as upstream passes it on, and never changes."""
        self._read(1, self._past)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="random:nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--stage", choices=("s3gen", "steps", "t3", "voice", "all"), default="all", help="all: without steps"
    )
    parser.add_argument("--s3gen-steps", choices=S3GEN_STEPS, default="auto", help="as for mynah-serve")
    parser.add_argument("--window", choices=tuple(WINDOWS), help="only this one of S3Gen's")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    torch.set_num_threads(args.threads)
    checkpoint = with_steps(open_checkpoint(args.model, cache_dir=None, device="cpu"), args.s3gen_steps)
    seconds: dict[str, dict[str, float]] = {}
    if args.stage in ("t3", "all"):
        cases = t3_cases(checkpoint, args.threads)
        for name, calls in cases.items():
            # steps follow each other, as in decoding
            seconds[name] = alternate(calls, args.repeats, run=1 if name == T3_PREFILL else 10)
        del cases
    if args.stage in ("s3gen", "all"):
        windows = (args.window,) if args.window else tuple(WINDOWS)
        cases = s3gen_cases(checkpoint, args.threads)
        parts = {name: alternate(calls, args.repeats) for name, calls in cases.items() if name.startswith(windows)}
        del cases
        for window in windows:
            flow, vocoder = parts[f"{window}: flow"], parts[f"{window}: vocoder"]
            seconds |= {f"{window}: flow": flow, f"{window}: vocoder": vocoder}
            seconds[window] = {side: flow[side] + vocoder[side] for side in flow}
    if args.stage == "steps":
        seconds |= {name: alternate(calls, args.repeats) for name, calls in steps_cases(checkpoint).items()}
    if args.stage in ("voice", "all"):
        seconds |= {name: alternate(calls, args.repeats) for name, calls in voice_cases(checkpoint).items()}
    report(seconds, args)


def report(seconds: Mapping[str, Mapping[str, float]], args: argparse.Namespace) -> None:
    rows = [
        (case, side, 1000 * value, value / sides["upstream"], GOALS.get((case, side), ""))
        for case, sides in seconds.items()
        for side, value in sides.items()
    ]
    ratios = {
        case: {side: round(value / sides["upstream"], 3) for side, value in sides.items() if side != "upstream"}
        for case, sides in seconds.items()
    }
    goals = {f"{case}, {side}": goal for (case, side), goal in GOALS.items()}
    text = table(["case", "runtime", "median ms", "over upstream", "goal"], rows)
    result = {"model": args.model, "threads": args.threads, "ratios": ratios, "goals": goals}
    publish("s3gen", text, result)


if __name__ == "__main__":
    main()
