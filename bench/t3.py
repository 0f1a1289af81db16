"""`make bench-t3`: speech tokens per second of vLLM, our torch backend and the published package's loop.

All sides have the same weights (T3's stop logit is pushed down, so that all make the same number of tokens), requests,
process and threads, in float32. vLLM's CPU attention is the one of tests/vllm, which copies every sequence's keys and
values at every step; vLLM's own kernels on a GPU do not.

Expected before the first run, on two cores with random:nano: upstream reads all weights for every token of every
request, so that its tokens/s stay near 25 for any number of requests. Ours read them once a step: the torch backend
about twice upstream at one request and five times at sixteen, where its attention goes row by row; vLLM no better than
upstream at one request, because of its bookkeeping and the copying, and at least four times at sixteen. A warm voice
saves 376 of 417 prompt rows: 41 rows and one more block remain, a first token in at most 0.3 of the time on both
backends. Goals for vLLM: 4 and 0.3.

With `--model random:standard` there is guidance: `--sides torch-float16 torch-int8 unguided upstream`, where `unguided`
is `torch-float16` with a weight of 0, one lane instead of two. Expected on a CPU: a step in float16 at most half of
upstream's, which reads all weights in float32 for two rows, and a quarter of it in 8 bits; two lanes at most 1.6 times
one.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from safetensors.torch import load_file

from bench.engine import endless_checkpoint
from bench.report import publish, table
from engines.checkpoints.checkpoint import Checkpoint
from engines.conditioning.random_weights import random_voice
from engines.kernels.dense import WeightFormat
from engines.t3.backend import T3Backend, T3Request
from engines.t3.decoder import DecoderLimits
from engines.t3.family import family_of
from engines.t3.load import load_net
from engines.t3.local_backend import LocalT3Backend
from engines.t3.vllm.backend import VllmT3Backend
from engines.voice import Voice

CONCURRENT = (1, 4, 16)
TEXT_TOKENS = 40
GOALS = {"vllm_over_upstream_at_16": 4.0, "vllm_warm_over_cold": 0.3}
_VOICE_SEED = 0


@dataclass
class Side:
    """One implementation's figures."""

    tokens_per_s: dict[int, float] = field(default_factory=dict)  # by concurrent requests
    first_token_cold_s: float = 0.0
    first_token_warm_s: float = 0.0


class Ours:
    """A T3Backend, as the pipeline uses it."""

    def __init__(self, backend: T3Backend, checkpoint: Checkpoint, **sampling: float) -> None:
        """`sampling`: changes of the model's own."""
        self._backend, self._checkpoint, self._sampling = backend, checkpoint, sampling
        self._runner = asyncio.Runner()
        self._texts = itertools.count()  # never the same twice, so that a cache can hold the voice only
        self._cold_voices = (voice_of(checkpoint, seed) for seed in itertools.count(_VOICE_SEED + 1))
        self._voice = voice_of(checkpoint, _VOICE_SEED)

    def make_s(self, count: int, tokens: int) -> float:
        """Seconds for `count` requests at once."""
        requests = [self._request(self._voice, tokens) for _ in range(count)]
        return self._runner.run(self._make_s(requests, tokens))

    def first_token_s(self, *, warm: bool) -> float:
        """Seconds from a request to its first speech token; a warm voice was used before."""
        voice = self._voice if warm else next(self._cold_voices)
        return self._runner.run(self._first_token_s(self._request(voice, 4)))

    def _request(self, voice: Voice, tokens: int) -> T3Request:
        request = request_of(self._checkpoint, next(self._texts), voice, tokens)
        return replace(request, sampling=replace(request.sampling, **self._sampling))

    def close(self) -> None:
        self._runner.run(self._backend.close())
        self._runner.close()

    async def _make_s(self, requests: list[T3Request], tokens: int) -> float:
        started_s = time.perf_counter()
        counts = await asyncio.gather(*(self._count_speech_tokens(request) for request in requests))
        elapsed_s = time.perf_counter() - started_s
        assert min(counts) >= tokens, f"a request ended after {min(counts)} tokens"
        return elapsed_s

    async def _count_speech_tokens(self, request: T3Request) -> int:
        generation = self._backend.start(request)
        count = 0
        while speech_tokens := await generation.next_speech_tokens():
            count += len(speech_tokens)
        return count

    async def _first_token_s(self, request: T3Request) -> float:
        started_s = time.perf_counter()
        generation = self._backend.start(request)
        await generation.next_speech_tokens()
        elapsed_s = time.perf_counter() - started_s
        await generation.cancel()
        return elapsed_s


class Upstream:
    """The published package's loop: one request after the other, without a prefix cache."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from tests.reference import upstream

        self._checkpoint = checkpoint
        self._cond = upstream.T3Cond
        self._t3 = upstream.t3(checkpoint.spec)
        self._t3.load_state_dict(load_file(checkpoint.t3_path))
        if not checkpoint.spec.is_llama:
            del self._t3.tfmr.wte

    def make_s(self, count: int, tokens: int) -> float:
        voice = voice_of(self._checkpoint, _VOICE_SEED)
        requests = [request_of(self._checkpoint, seed, voice, tokens) for seed in range(count)]
        started_s = time.perf_counter()
        for request in requests:
            self._speak(request, tokens)
        return time.perf_counter() - started_s

    def first_token_s(self, *, warm: bool) -> float:
        request = request_of(self._checkpoint, 0, voice_of(self._checkpoint, _VOICE_SEED), 4)
        started_s = time.perf_counter()
        self._speak(request, 1)
        return time.perf_counter() - started_s

    def close(self) -> None:
        del self._t3

    def _speak(self, request: T3Request, tokens: int) -> None:
        if self._checkpoint.spec.is_llama:
            drawn = self._guided(request, tokens)
            assert drawn.shape[1] == tokens, f"upstream stopped after {drawn.shape[1]} tokens"
            return
        cond = self._cond(
            speaker_emb=torch.tensor(request.voice.speaker_embedding)[None],
            cond_prompt_speech_tokens=torch.tensor(request.voice.t3_prompt_tokens)[None],
        )
        drawn = self._t3.inference_turbo(cond, torch.tensor(request.text_tokens)[None], max_gen_len=tokens - 1)
        assert drawn.shape[1] == tokens, f"upstream stopped after {drawn.shape[1]} tokens"

    def _guided(self, request: T3Request, tokens: int) -> torch.Tensor:
        from tests.reference import t3_llama_upstream

        sampling = request.sampling
        return self._t3.inference(
            t3_cond=t3_llama_upstream.conditioning(request.voice, sampling.exaggeration),
            text_tokens=t3_llama_upstream.text_rows(request.text_tokens),
            max_new_tokens=tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            cfg_weight=sampling.cfg_weight,
        )


def voice_of(checkpoint: Checkpoint, seed: int) -> Voice:
    """A voice with the longest prompt of the model's T3."""
    return random_voice(seed, checkpoint.spec.conditioning.t3_prompt_tokens)


def request_of(checkpoint: Checkpoint, seed: int, voice: Voice, tokens: int) -> T3Request:
    """A request with a different text for every seed."""
    text = np.random.default_rng(seed).integers(1, checkpoint.spec.t3.text_vocab, TEXT_TOKENS)
    family = family_of(checkpoint.spec.t3)
    counted = tokens - family.end.uncounted_draws
    return T3Request(tuple(text.tolist()), voice, replace(family.sampling, seed=seed, max_speech_tokens=counted))


def make_sides(arguments: argparse.Namespace, checkpoint: Checkpoint) -> dict[str, Ours | Upstream]:
    makers: dict[str, Callable[[], Ours | Upstream]] = {
        "vllm": lambda: Ours(_vllm(checkpoint, arguments.device), checkpoint),
        "torch": lambda: Ours(_torch(checkpoint, arguments.device), checkpoint),
        "torch-float16": lambda: Ours(_torch(checkpoint, arguments.device, "float16"), checkpoint),
        "torch-int8": lambda: Ours(_torch(checkpoint, arguments.device, "int8"), checkpoint),
        "unguided": lambda: Ours(_torch(checkpoint, arguments.device, "float16"), checkpoint, cfg_weight=0.0),
        "onnx": lambda: Ours(_onnx(checkpoint, arguments.threads), checkpoint),
        "upstream": lambda: Upstream(checkpoint),
    }
    return {name: makers[name]() for name in arguments.sides}


_LIMITS = DecoderLimits(max_streams=max(CONCURRENT), max_positions=1024)


def _vllm(checkpoint: Checkpoint, device: str) -> T3Backend:
    return VllmT3Backend(
        checkpoint, device=device, max_streams=_LIMITS.max_streams, max_positions=_LIMITS.max_positions
    )


def _torch(checkpoint: Checkpoint, device: str, weights: WeightFormat = "float32") -> T3Backend:
    return LocalT3Backend(load_net(checkpoint, device, weights=weights), _LIMITS)


def _onnx(checkpoint: Checkpoint, threads: int) -> T3Backend:
    from engines.t3.onnx.export import open_onnx_net

    return LocalT3Backend(open_onnx_net(checkpoint, "fp32", threads=threads), _LIMITS)


def measure(arguments: argparse.Namespace) -> dict[str, Side]:
    """Medians. The sides take turns, so that other load on the machine affects them alike."""
    running = make_sides(arguments, endless_checkpoint(arguments.model))
    sides = {name: Side() for name in running}
    for side in running.values():  # first-use costs, and the voice that is warm from here on
        side.make_s(2, 4)
    for count in CONCURRENT:
        times_s = take_turns(running, arguments.repeats, lambda side, count=count: side.make_s(count, arguments.tokens))  # type: ignore[misc]
        for name, elapsed_s in times_s.items():
            sides[name].tokens_per_s[count] = count * arguments.tokens / elapsed_s
    cold = take_turns(running, 2 * arguments.repeats, lambda side: side.first_token_s(warm=False))
    for side in running.values():
        side.first_token_s(warm=True)  # in case the other voices evicted it
    warm = take_turns(running, 2 * arguments.repeats, lambda side: side.first_token_s(warm=True))
    for name, side in running.items():
        sides[name].first_token_cold_s, sides[name].first_token_warm_s = cold[name], warm[name]
        side.close()
    return sides


def take_turns(
    running: dict[str, Ours | Upstream], repeats: int, measured: Callable[[Ours | Upstream], float]
) -> dict[str, float]:
    times_s: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(repeats):
        for name, side in running.items():
            times_s[name].append(measured(side))
    return {name: statistics.median(values) for name, values in times_s.items()}


def report(arguments: argparse.Namespace, sides: dict[str, Side]) -> None:
    rows: list[tuple[object, ...]] = [
        (f"tokens/s, {count} at once", *(side.tokens_per_s[count] for side in sides.values())) for count in CONCURRENT
    ]
    rows += [
        ("first token ms, cold voice", *(1000 * side.first_token_cold_s for side in sides.values())),
        ("first token ms, warm voice", *(1000 * side.first_token_warm_s for side in sides.values())),
        ("warm / cold", *(side.first_token_warm_s / side.first_token_cold_s for side in sides.values())),
    ]
    result: dict[str, object] = {"model": arguments.model, "device": arguments.device, "threads": arguments.threads}
    for name, side in sides.items():
        result[f"{name}_tokens_per_s"] = {str(count): round(rate, 1) for count, rate in side.tokens_per_s.items()}
        result[f"{name}_first_token_ms"] = {
            "cold": round(1000 * side.first_token_cold_s, 1),
            "warm": round(1000 * side.first_token_warm_s, 1),
        }
    if {"vllm", "upstream"} <= sides.keys():
        vllm, upstream = sides["vllm"], sides["upstream"]
        ratio = vllm.tokens_per_s[CONCURRENT[-1]] / upstream.tokens_per_s[CONCURRENT[-1]]
        result["vllm_over_upstream_at_16"] = round(ratio, 2)
        result["vllm_warm_over_cold"] = round(vllm.first_token_warm_s / vllm.first_token_cold_s, 3)
        result["goals"] = GOALS
    for name in ("torch-float16", "torch-int8"):
        if {name, "upstream"} <= sides.keys():
            result[f"{name}_step_over_upstream"] = _ratios(sides["upstream"], sides[name])
    if {"torch-float16", "unguided"} <= sides.keys():
        result["two_lanes_over_one"] = _ratios(sides["unguided"], sides["torch-float16"])
    publish("t3", table([arguments.model, *sides], rows), result)


def _ratios(of: Side, to: Side) -> dict[str, float]:
    """The tokens per second of one side over those of another, by concurrent requests."""
    return {str(count): round(of.tokens_per_s[count] / to.tokens_per_s[count], 2) for count in CONCURRENT}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="random:nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=100, help="speech tokens of each request")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--sides",
        nargs="+",
        default=["vllm", "torch", "upstream"],
        help="sides to measure: vllm, torch, torch-float16, torch-int8, unguided, onnx, upstream",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report(arguments, measure(arguments))


if __name__ == "__main__":
    main()
