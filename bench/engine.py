"""`make bench-engine`: compares our engine with the published package on random:nano, with the same threads and work.

`--model random:standard` compares standard with guidance and ten steps of S3Gen: expected are half of the package's
time for T3, 0.2 of it to the first audio, and 0.6 of its memory.

Both load the same checkpoint, whose T3 never stops, so that both generate the same number of speech tokens. Timings
alternate in one process; peak memory is measured in a new process each. Our engine runs with --strict-reference, its
T3's weights in float16; T3 is expected to take 0.35 of the package's time. The last row lets the engine choose for one
listener at its start, which is its default. It is expected to take 0.35 of the package's time and, on two cores, less
than the duration of the speech; the choice is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bench.report import median_s, publish, table
from engines.api import AudioChunk, Segment
from engines.checkpoints.checkpoint import Checkpoint, open_checkpoint
from engines.conditioning.builtin import load_builtin
from engines.config import EngineConfig, Sampling
from engines.factory import build_engine
from engines.model_spec import SILENCE_SPEECH_TOKEN, SPEECH_TOKENS_PER_S, STOP_SPEECH_TOKEN
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.streaming.schedule import Schedule, ScheduleStep
from engines.s3gen.streaming.segment_decoder import SegmentDecoder, decode_windows
from engines.s3gen.streaming.windows import WindowPlanner
from engines.t3.family import family_of

THREADS = 2
SPEECH_TOKENS = 250  # ten seconds of speech
AUDIO_S = (SPEECH_TOKENS + 3) / SPEECH_TOKENS_PER_S
TEN_WORDS = "Your table for two is booked for eight this evening."
TEN_WORDS_TOKENS = 80  # the package yields audio at the end of its sentence
TEXT = "The quick brown fox jumps over the lazy dog while the band plays on, and nobody minds the rain at all."
FAMILY_GOALS = {"t3_ms_per_token": 0.5, "time_to_first_audio_s": 0.2, "peak_memory_mb": 0.6}  # of standard
GOALS = {"t3_ms_per_token": 0.8, "s3gen_s_per_audio_s": 0.9, "time_to_first_audio_s": 0.25, "peak_memory_mb": 0.7}
LAPTOP: dict[str, Any] = {"max_streams": 1, "strict_reference": False}


@dataclass
class Side:
    """The figures of one engine."""

    t3_ms_per_token: float = 0.0
    s3gen_s_per_audio_s: float = 0.0
    time_to_first_audio_s: float = 0.0
    peak_memory_mb: float = 0.0
    utterance_s: float = 0.0
    laptop_utterance_s: float = 0.0
    laptop_first_audio_s: float = 0.0  # of a ten-word sentence; the package's is its whole utterance
    setting: str = ""  # that our engine chose for the laptop's rows


class Ours:
    """Our engine as in a server, by default as near to the reference as possible, and S3Gen alone, offline."""

    def __init__(self, checkpoint: Checkpoint, **settings: Any) -> None:
        torch.set_num_threads(THREADS)
        assert checkpoint.conds_path is not None
        self.voice = load_builtin(checkpoint.conds_path)
        config = EngineConfig(
            model=str(checkpoint.folder), device="cpu", threads=THREADS, **{"strict_reference": True, **settings}
        )
        self.engine = build_engine(config)
        self.checkpoint = checkpoint
        self.offline: TorchRuntime | None = None

    @property
    def sampling(self) -> Sampling:
        """The model's own, for ten seconds of speech."""
        counted = SPEECH_TOKENS - family_of(self.checkpoint.spec.t3).end.uncounted_draws
        return replace(self.engine.info.sampling, seed=1, max_speech_tokens=counted)

    async def _speak(self, *, first_chunk_only: bool, text: str = TEXT) -> tuple[float, float, int]:
        """(seconds to the first chunk, T3's seconds, samples)"""
        stream = await self.engine.open(self.voice, self.sampling)
        started, first_s, samples = time.perf_counter(), 0.0, 0
        speaking = stream.speak(Segment(0, text))
        async for event in speaking:
            if isinstance(event, AudioChunk):
                first_s = first_s or time.perf_counter() - started
                samples += len(event.samples)
                if first_chunk_only:
                    break
        await speaking.aclose()
        await stream.close()
        return first_s, 0.0, samples

    async def speak_once(self) -> None:
        """Speak ten seconds."""
        await self._speak(first_chunk_only=False)

    async def first_audio(self, text: str = TEXT) -> float:
        return (await self._speak(first_chunk_only=True, text=text))[0]

    async def t3_only(self) -> None:
        """Generate all speech tokens of the text."""
        from engines.t3.backend import T3Request

        stages = self.engine.stages
        generation = stages.t3.start(T3Request(stages.encode_text(TEXT), self.voice, self.sampling))
        tokens = 0
        while speech_tokens := await generation.next_speech_tokens():
            tokens += len(speech_tokens)
        assert tokens >= SPEECH_TOKENS, f"T3 stopped after {tokens} tokens"

    def s3gen_offline(self) -> None:
        """Decode the whole utterance in one window, the same work as upstream's single pass."""
        self.offline = self.offline or TorchRuntime(self.checkpoint)
        decoder = SegmentDecoder(self.voice, seed=1)
        decoder.speech_tokens = speech_tokens_of_ten_seconds(self.checkpoint)
        planner = WindowPlanner(Schedule("offline", (ScheduleStep(10_000),)))
        window = planner.next(len(decoder.speech_tokens), ended=True)
        assert window is not None
        (samples,) = decode_windows(self.offline, [(decoder, window)])
        assert isinstance(samples, np.ndarray)


class Upstream:
    """The published package's path of the model, at its T3's dimensions, without its watermarker and resampling."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from tests.reference import upstream

        torch.set_num_threads(THREADS)
        assert checkpoint.conds_path is not None
        self.checkpoint = checkpoint
        self.t3 = upstream.t3(checkpoint.spec)
        self.t3.load_state_dict(load_file(checkpoint.t3_path))
        if not checkpoint.spec.is_llama:
            del self.t3.tfmr.wte
        self.s3gen = upstream.s3gen(checkpoint.spec)
        self.s3gen.load_state_dict(load_file(checkpoint.s3gen_path))
        conds = torch.load(checkpoint.conds_path, weights_only=True)
        self.t3_cond, self.gen = upstream.T3Cond(**conds["t3"]), conds["gen"]
        self.text = _upstreams_text(checkpoint)

    def t3_only(self, speech_tokens: int = SPEECH_TOKENS) -> torch.Tensor:
        # a copy, since upstream stores the prompt's embedding in the conditioning at its first use
        cond = type(self.t3_cond)(**self.t3_cond.__dict__)
        if self.checkpoint.spec.is_llama:
            tokens = self.t3.inference(t3_cond=cond, text_tokens=self.text, max_new_tokens=speech_tokens, top_p=1.0)
        else:
            tokens = self.t3.inference_turbo(cond, self.text, max_gen_len=speech_tokens - 1)
        assert tokens.shape[1] == speech_tokens, f"upstream stopped after {tokens.shape[1]} tokens"
        return tokens

    def s3gen_offline(self, speech_tokens: torch.Tensor | None = None) -> None:
        if speech_tokens is None:
            speech_tokens = torch.tensor(speech_tokens_of_ten_seconds(self.checkpoint))
        steps = self.checkpoint.spec.flow.steps
        self.s3gen.inference(speech_tokens=speech_tokens, ref_dict=dict(self.gen), n_cfm_timesteps=steps)

    def speak_once(self, speech_tokens: int = SPEECH_TOKENS) -> None:
        tokens = self.t3_only(speech_tokens)
        tokens = tokens[tokens < 6561]
        silence = family_of(self.checkpoint.spec.t3).end.silence_tokens
        self.s3gen_offline(torch.cat([tokens, torch.full((silence,), SILENCE_SPEECH_TOKEN)]))


def _upstreams_text(checkpoint: Checkpoint) -> torch.Tensor:
    """(1, n) of Turbo and Nano, (2, n) with the marks around it where there is guidance."""
    if checkpoint.spec.is_llama:
        from chatterbox.models.tokenizers import EnTokenizer, MTLTokenizer

        from tests.reference.t3_llama_upstream import text_rows

        path = str(checkpoint.folder / checkpoint.spec.tokenizer_name)
        if checkpoint.spec.languages:
            return text_rows(MTLTokenizer(path).encode(TEXT, language_id="en"))
        return text_rows(EnTokenizer(path).encode(TEXT))
    from transformers import AutoTokenizer

    ids: torch.Tensor = AutoTokenizer.from_pretrained(checkpoint.folder)(TEXT, return_tensors="pt").input_ids
    return ids


def speech_tokens_of_ten_seconds(checkpoint: Checkpoint) -> list[int]:
    speech_tokens = np.random.default_rng(0).integers(0, 6561, SPEECH_TOKENS).tolist()
    return [*speech_tokens, *[SILENCE_SPEECH_TOKEN] * family_of(checkpoint.spec.t3).end.silence_tokens]


def endless_checkpoint(model: str) -> Checkpoint:
    """Returns a random checkpoint whose T3 never stops; other files are links."""
    source = open_checkpoint(model, cache_dir=None, device="cpu")
    folder = Path("build/bench") / f"{source.folder.name}-endless"
    if not (folder / source.spec.t3_file).exists():
        folder.mkdir(parents=True, exist_ok=True)
        for path in source.folder.iterdir():
            if path.name != source.spec.t3_file and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path.resolve())
        weights = load_file(source.t3_path)
        if source.spec.is_llama:  # without a bias: one channel is positive and the stop's row reads it alone
            weights["speech_head.weight"][STOP_SPEECH_TOKEN] *= -1
        else:
            weights["speech_head.bias"][STOP_SPEECH_TOKEN] = -100.0
        save_file(weights, folder / f"{source.spec.t3_file}.partial")
        (folder / f"{source.spec.t3_file}.partial").replace(folder / source.spec.t3_file)
    return Checkpoint(folder, source.spec, random_weights=True)


def peak_memory_mb(side: str, checkpoint: Checkpoint) -> float:
    """Returns the peak resident memory of a new process that loads one engine and speaks ten seconds."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_speak_in_child, args=(side, checkpoint, send))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"The process that measures {side} failed with exit code {process.exitcode}.")
    return float(receive.recv())


def _speak_in_child(side: str, checkpoint: Checkpoint, send: object) -> None:
    if side == "ours":
        ours = Ours(checkpoint)
        asyncio.run(ours.speak_once())
    else:
        Upstream(checkpoint).speak_once()
    send.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # type: ignore[attr-defined]


def measure(checkpoint: Checkpoint, repeats: int) -> tuple[Side, Side]:
    ours, theirs = Side(), Side()
    ours.peak_memory_mb = peak_memory_mb("ours", checkpoint)
    theirs.peak_memory_mb = peak_memory_mb("upstream", checkpoint)
    us, upstream = Ours(checkpoint), Upstream(checkpoint)

    def timed(call: Callable[[], object]) -> float:
        return median_s(call, repeats=repeats)

    with asyncio.Runner() as runner:
        ours.s3gen_s_per_audio_s = timed(us.s3gen_offline) / AUDIO_S
        theirs.s3gen_s_per_audio_s = timed(upstream.s3gen_offline) / AUDIO_S
        ours.t3_ms_per_token = 1000 * timed(lambda: runner.run(us.t3_only())) / SPEECH_TOKENS
        theirs.t3_ms_per_token = 1000 * timed(upstream.t3_only) / SPEECH_TOKENS
        ours.time_to_first_audio_s = timed(lambda: runner.run(us.first_audio()))
        theirs.time_to_first_audio_s = timed(upstream.speak_once)
        ours.utterance_s = timed(lambda: runner.run(us.speak_once()))
        theirs_s = theirs.time_to_first_audio_s  # it yields audio only at the end
        theirs.utterance_s = theirs.laptop_utterance_s = theirs_s
        runner.run(us.engine.close())
        fast = Ours(checkpoint, **LAPTOP)
        ours.laptop_utterance_s = timed(lambda: runner.run(fast.speak_once()))
        ours.laptop_first_audio_s = timed(lambda: runner.run(fast.first_audio(TEN_WORDS)))
        theirs.laptop_first_audio_s = timed(lambda: upstream.speak_once(TEN_WORDS_TOKENS))
        ours.setting = fast.engine.info.setting_reason
        runner.run(fast.engine.close())
    return ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="random:nano")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    checkpoint = endless_checkpoint(arguments.model)
    goals = FAMILY_GOALS if checkpoint.spec.is_llama else GOALS
    ours, theirs = measure(checkpoint, arguments.repeats)
    mine, other = ({key: value for key, value in asdict(side).items() if key != "setting"} for side in (ours, theirs))
    rows = [(key, mine[key], other[key], mine[key] / other[key], goals.get(key, "")) for key in mine]
    text = table(["median", "ours", "upstream", "ratio", "goal"], rows)
    ratios = {key: round(mine[key] / other[key], 3) for key in mine}
    real_time_factor = round(ours.laptop_utterance_s / AUDIO_S, 2)
    first_s = round(ours.laptop_first_audio_s, 2)
    text += f"\nchosen for one stream: {ours.setting}"
    text += f"\nreal-time factor in that setting: {real_time_factor}, first audio of ten words: {first_s} s"
    result = {"model": arguments.model, "threads": THREADS, "ratios": ratios, "goals": goals}
    laptop = {"laptop_real_time_factor": real_time_factor, "laptop_first_audio_s": first_s, "setting": ours.setting}
    publish("engine", text, {**result, **laptop})


if __name__ == "__main__":
    main()
