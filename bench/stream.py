"""`make bench-stream`: the cost of streaming, its distance from one pass, and the number of streams that it carries.

On the torch CPU runtime with random:tiny, beside the streaming of the public ports (bench/ports.py) on the same nets.
Ours runs as a server does for clients that set no seed: hops follow the load. Expected before it was measured: the
ports compute 325 window tokens for each second of audio, our largest step about 410 for four seconds, so at least twice
the streams without an underrun, with a later first sound under load; and no seams, where the ports have one at most
joins. The sides take turns at each number of streams, for several rounds, so that what else the machine does meets all
of them; a number counts as carried if it was in most rounds. The results are in docs/experiments.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from bench.engine import endless_checkpoint
from bench.ports import Port
from bench.report import BUILD, median_s, publish, table
from bench.seams import find_seams
from engines.api import Event, Segment, SegmentDone
from engines.conditioning.builtin import load_builtin
from engines.config import EngineConfig, Sampling
from engines.errors import EngineBusy
from engines.factory import build_engine
from engines.model_spec import SPEECH_TOKENS_PER_S
from engines.pipeline import Pipeline
from engines.s3gen.nets.source import HARMONICS
from engines.s3gen.noise import F32
from engines.s3gen.runtime import FlowBatch, Runtime, VocoderBatch, VocoderResult
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.streaming.schedule import Schedule, ScheduleStep
from engines.s3gen.streaming.segment_decoder import SegmentDecoder, collate_flow, decode_windows
from engines.s3gen.streaming.windows import Window, WindowPlanner
from engines.t3.decoder import DecoderLimits
from engines.t3.local_backend import LocalT3Backend
from engines.t3.model import T3Net
from engines.voice import Voice

THREADS = 2
SPEECH_TOKENS = 250
HOPS = (10, 25, 50, 100)
CROWDS = (1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
ALL_SIDES_UP_TO = 8  # streams; beyond, a side goes on while it carries what it has
TEXT = "The harbour was quiet that morning, and the boats lay still in the grey light."
Speak = Callable[[Segment], AsyncGenerator[Event, None]]


def window_of(hop: int, left: int = 50, lookahead: int = 3) -> Window:
    """A window in the middle of an utterance."""
    return Window(1, 0, left, left + hop, left + hop + lookahead, is_last=False)


def decoder_with(voice: Voice, seed: int, tokens: int) -> SegmentDecoder:
    decoder = SegmentDecoder(voice, seed)
    decoder.speech_tokens = np.random.default_rng(seed).integers(0, 6561, tokens).tolist()
    return decoder


def throughput(runtime: Runtime, voice: Voice, repeats: int) -> list[tuple[int, int, float, float, float]]:
    """(hop, batch, seconds of audio per second, gain over batch 1, seconds per second of audio) for each bucket."""
    rows = []
    for hop in HOPS:
        single = 0.0
        for batch in (1, 2, 4, 8):
            window = window_of(hop)
            work = [(decoder_with(voice, i, window.lookahead_stop), window) for i in range(batch)]
            audio_s = batch * hop / SPEECH_TOKENS_PER_S
            speed = audio_s / median_s(lambda work=work: decode_windows(runtime, work), repeats=repeats)
            single = single or speed
            rows.append((hop, batch, speed, speed / single, 1 / speed))
    return rows


def mel_distance(runtime: Runtime, voice: Voice) -> dict[str, float]:
    """Mean distance of streamed mel from one pass in its standard deviations, hop 25, the same noise."""
    speech_tokens = np.random.default_rng(3).integers(0, 6561, 125).tolist()

    def mel(schedule: Schedule, seed_of: Callable[[int], int] = lambda index: 1) -> F32:
        planner, frames = WindowPlanner(schedule), []
        while (window := planner.next(len(speech_tokens), ended=True)) is not None:
            decoder = SegmentDecoder(voice, seed_of(window.index))
            decoder.speech_tokens = speech_tokens
            row = runtime.flow(collate_flow([decoder.flow_row(window)]))[0][len(voice.s3gen_prompt_mel) :]
            frames.append(row[window.new_frames])
        return np.concatenate(frames)

    offline = mel(Schedule("offline", (ScheduleStep(1000),)))

    def distance(other: F32) -> float:
        return float(np.abs(other - offline).mean() / offline.std())

    figures = {
        f"left {left}, right {right}": distance(mel(Schedule("any", (ScheduleStep(25, right),), left)))
        for left in (0, 12, 25, 50)
        for right in (3, 7, 22)
    }
    figures["left 50, right 3, fresh noise"] = distance(
        mel(Schedule("any", (ScheduleStep(25),), 50), lambda index: index + 2)
    )
    return figures


@dataclass
class Round:
    """What came of a number of streams that begin together."""

    streams: int
    ttfa_s: float
    underruns: int
    underrun_s: float
    refused: int


@dataclass
class Crowd:
    """The result of a number of concurrent streams: medians of the rounds, and the rounds without a gap."""

    streams: int
    rounds: int
    rounds_carried: int
    ttfa_s: float
    underruns: float
    underrun_s: float
    refused: float  # by an engine that is overloaded

    @property
    def carried(self) -> bool:
        return self.rounds_carried > self.rounds / 2

    @classmethod
    def of(cls, rounds: Sequence[Round]) -> Crowd:
        carried = sum(not each.underruns and not each.refused for each in rounds)
        return cls(
            rounds[0].streams,
            len(rounds),
            carried,
            median(each.ttfa_s for each in rounds),
            median(each.underruns for each in rounds),
            median(each.underrun_s for each in rounds),
            median(each.refused for each in rounds),
        )


async def crowd(speak: Speak, streams: int) -> Round:
    """Concurrent streams in real time, started 50 ms apart."""

    async def one(index: int) -> SegmentDone | None:
        await asyncio.sleep(0.05 * index)
        with suppress(EngineBusy):
            async for event in speak(Segment(index, TEXT)):
                if isinstance(event, SegmentDone):
                    return event
        return None

    done = await asyncio.gather(*(one(i) for i in range(streams)))
    stats = [event.stats for event in done if event is not None]
    return Round(
        streams,
        float(np.median([s.ttfa_s for s in stats])),
        sum(s.underruns for s in stats),
        sum(s.underrun_s for s in stats),
        streams - len(stats),
    )


def ours(engine: Pipeline, voice: Voice, *, repeatable: bool = False) -> Speak:
    async def speak(segment: Segment) -> AsyncGenerator[Event, None]:
        most = engine.info.limits.max_streams
        schedule = engine.schedule_now(voice, most) if repeatable else ""  # as a server does for a stream with a seed
        tokens = SPEECH_TOKENS - 1
        sampling = Sampling(seed=segment.index, max_speech_tokens=tokens, repeatable=repeatable, schedule=schedule)
        stream = await engine.open(voice, sampling)
        try:
            async for event in stream.speak(segment):
                yield event
        finally:
            await stream.close()

    return speak


def theirs(port: Port, voice: Voice) -> Speak:
    def speak(segment: Segment) -> AsyncGenerator[Event, None]:
        return port.speak(segment, voice, Sampling(seed=segment.index, max_speech_tokens=SPEECH_TOKENS - 1))

    return speak


def crowds(run: asyncio.Runner, sides: Mapping[str, Speak], most_streams: int, rounds: int) -> dict[str, list[Crowd]]:
    """Increasing numbers of streams; beyond ALL_SIDES_UP_TO of a side only until its streams run dry."""
    results: dict[str, list[Crowd]] = {name: [] for name in sides}
    for speak in sides.values():
        run.run(crowd(speak, 1))  # warm-up
    for streams in CROWDS:
        left = [name for name in sides if streams <= ALL_SIDES_UP_TO or results[name][-1].carried]
        if streams > most_streams or not left:
            break
        found: dict[str, list[Round]] = {name: [] for name in left}
        for _ in range(rounds):
            for name in left:
                found[name].append(run.run(crowd(sides[name], streams)))
                print(name, found[name][-1], file=sys.stderr, flush=True)
        for name in left:
            results[name].append(Crowd.of(found[name]))
    return results


def sustainable(results: list[Crowd]) -> int:
    """The largest number of streams up to which none ran dry."""
    carried = 0
    for result in results:
        if not result.carried:
            break
        carried = result.streams
    return carried


class Singer:
    """A runtime without weights whose audio is speech-like: mel is a slow melody, and the vocoder sings it.

    Nine harmonics under a syllable-like envelope, from the phase and f0 of its inputs, so that the effect of a join on
    the source can be measured without trained weights.
    """

    name = "singer"
    cfm_s = None

    def flow(self, batch: FlowBatch) -> F32:
        mel = np.zeros(batch.noise.shape, np.float32)
        position = np.repeat(batch.tokens, 2, axis=1) * 2 + np.tile([0, 1], batch.tokens.shape[1])
        mel[..., 0] = 150 + 40 * np.sin(position / 23) + 0.05 * batch.noise[..., 0]
        mel[..., 1] = 0.55 + 0.45 * np.sin(position / 7)
        return mel

    def vocoder(self, batch: VocoderBatch) -> VocoderResult:
        frames = np.arange(batch.mel.shape[1])
        f0 = np.where(frames < batch.fixed_frames[:, None], batch.fixed_f0_hz, batch.mel[..., 0])
        cycles = batch.phase_cycles[:, None] + np.cumsum(np.repeat(f0, 480, axis=1).astype(np.float64), axis=1) / 24_000
        tone = sum(
            np.sin(2 * np.pi * (h * cycles + batch.harmonic_cycles[:, h - 1, None])) / h
            for h in range(1, HARMONICS + 1)
        )
        places = np.arange(batch.noise.shape[1]) / 480
        level = np.stack([np.interp(places, frames + 0.5, row) for row in batch.mel[..., 1]])
        waveform = 0.15 * level * tone + 0.002 * batch.noise
        return VocoderResult(waveform.astype(np.float32), f0.astype(np.float32))


def seams(voice: Voice) -> dict[str, tuple[int, int]]:
    """(seams, joins) in 20 s of speech-like audio, for our windows and the ports' chunks."""
    runtime, speech_tokens = Singer(), list(range(500))
    decoder = SegmentDecoder(voice, seed=1)
    decoder.speech_tokens = speech_tokens
    planner, mine = WindowPlanner(Schedule("hop 25", (ScheduleStep(25),))), []
    while (window := planner.next(len(speech_tokens), ended=True)) is not None:
        (samples,) = decode_windows(runtime, [(decoder, window)])
        assert isinstance(samples, np.ndarray)
        mine.append(samples)
    port = Port(None, runtime, ())  # type: ignore[arg-type]  # its decoder alone
    other = [port.decode(voice, speech_tokens[: start + 25], start) for start in range(0, 500, 25)]
    return {name: _seams_in(chunks) for name, chunks in (("ours", mine), ("ports", other))}


def _seams_in(chunks: list[F32]) -> tuple[int, int]:
    joins = np.cumsum([len(chunk) for chunk in chunks])[:-1].tolist()
    return len({seam.sample for seam in find_seams(np.concatenate(chunks), joins)}), len(joins)


def plot(path: Path, distance: dict[str, float], mine: list[Crowd], other: list[Crowd], cost: list[tuple]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    single = [row for row in cost if row[1] == 1]
    left.plot([row[0] for row in single], [row[4] for row in single], "o-")
    left.set(
        xlabel="hop (speech tokens)", ylabel="decode seconds per second of audio", title="Cost by hop", ylim=(0, None)
    )
    for ahead in (3, 7, 22):
        lefts = (0, 12, 25, 50)
        values = [distance[f"left {n}, right {ahead}"] for n in lefts]
        middle.plot(lefts, values, "o-", label=f"right context {ahead}")
    middle.set(xlabel="left context (speech tokens)", ylabel="mel distance from one pass (std)", ylim=(0, None))
    middle.set_title("Closeness to one pass")
    middle.legend()
    for results, name in ((mine, "ours"), (other, "as the public ports")):
        right.plot([r.streams for r in results], [r.underrun_s / r.streams for r in results], "o-", label=name)
    right.set(xscale="log", xlabel="concurrent streams", ylabel="silence per stream (s)", title="Running dry")
    right.set_xticks([r.streams for r in mine], [str(r.streams) for r in mine])
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="random:tiny")
    parser.add_argument("--repeats", type=int, default=5, help="of each window's time (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each number of streams (default %(default)s)")
    parser.add_argument("--most-streams", type=int, default=64)
    arguments = parser.parse_args()
    checkpoint = endless_checkpoint(arguments.model)
    assert checkpoint.conds_path is not None
    voice = load_builtin(checkpoint.conds_path)
    max_streams, folder = arguments.most_streams, str(checkpoint.folder)
    engine = build_engine(EngineConfig(model=folder, device="cpu", threads=THREADS, max_streams=max_streams))
    runtime = TorchRuntime(checkpoint)
    cost = throughput(runtime, voice, arguments.repeats)
    distance = mel_distance(runtime, voice)
    with asyncio.Runner() as run:
        run.run(engine.warm_up())
        net = T3Net.load(checkpoint.t3_path, checkpoint.spec, "cpu")
        t3 = LocalT3Backend(net, DecoderLimits(max_streams))
        port = Port(t3, TorchRuntime(checkpoint), engine.stages.encode_text(TEXT))
        sides = {
            "ours": ours(engine, voice),
            "ours, seed named": ours(engine, voice, repeatable=True),
            "ports": theirs(port, voice),
        }
        results = crowds(run, sides, max_streams, arguments.rounds)
        run.run(engine.close())
        run.run(t3.close())
    found = seams(voice)
    report(
        arguments.model,
        cost,
        distance,
        results,
        found,
        engine.info.setting_reason,
    )


def report(
    model: str,
    cost: list[tuple[int, int, float, float, float]],
    distance: dict[str, float],
    results: dict[str, list[Crowd]],
    seam_counts: dict[str, tuple[int, int]],
    setting: str,
) -> None:
    mine, other = results["ours"], results["ports"]
    plot(BUILD / "stream.png", distance, mine, other, cost)
    ratio, seeded = sustainable(mine) / max(1, sustainable(other)), sustainable(results["ours, seed named"])
    rows = [
        (name, r.streams, f"{r.rounds_carried} of {r.rounds}", r.ttfa_s, r.underruns, r.underrun_s, r.refused)
        for name, rs in results.items()
        for r in rs
    ]
    text = "\n\n".join(
        [
            table(["hop", "batch", "audio s per s", "gain", "cost"], cost),
            table(["mel distance from one pass", "std"], list(distance.items())),
            table(["concurrent streams", "n", "carried in", "TTFA s", "underruns", "silence s", "refused"], rows),
            table(["seams", "found", "joins"], [(name, *counts) for name, counts in seam_counts.items()]),
            f"sustainable streams: ours {sustainable(mine)}, with seeds {seeded} (goal {0.8 * sustainable(mine):.1f}), "
            f"ports {sustainable(other)}, ratio {ratio:.1f} (goal 2)",
            f"ours runs with {setting}",
        ]
    )
    result = {
        "model": model,
        "threads": THREADS,
        "batch_gain": {f"hop {hop} batch {batch}": round(gain, 2) for hop, batch, _, gain, _ in cost},
        "mel_distance": {name: round(value, 3) for name, value in distance.items()},
        "crowds": {name: [asdict(r) for r in rs] for name, rs in results.items()},
        "sustainable_ratio": round(ratio, 2),
        "sustainable": {name: sustainable(rs) for name, rs in results.items()},
        "setting": setting,
        "seams": {name: counts[0] for name, counts in seam_counts.items()},
    }
    publish("stream", text, result)


if __name__ == "__main__":
    main()
