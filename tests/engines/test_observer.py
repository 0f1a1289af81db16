"""What the assembled engine tells whoever observes it: every kind of news, in amounts that fit the speech."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import ContextVar

import engines
from engines.api import Observer, Segment, SegmentDone, T3Use
from engines.config import EngineConfig, Sampling

speaker: ContextVar[str] = ContextVar("speaker", default="nobody")


class Recorder(Observer):
    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.speech_tokens = 0
        self.use: list[T3Use] = []
        self.speakers: set[str] = set()

    def _note(self, what: str, seconds: float) -> None:
        assert seconds >= 0
        self.calls[what] += 1
        self.seconds[what] += seconds  # type: ignore[assignment]

    def segment_prefilled(self, seconds: float) -> None:
        self.speakers.add(speaker.get())
        self._note("prefill", seconds)

    def segment_generated(self, seconds: float, speech_tokens: int) -> None:
        self.speakers.add(speaker.get())
        self._note("generated", seconds)
        self.speech_tokens += speech_tokens

    def step_ran(self, seconds: float, sequences: int) -> None:
        assert sequences == 1
        self._note("step", seconds)

    def t3_used(self, use: T3Use) -> None:
        self.use.append(use)

    def batch_ran(self, windows: int) -> None:
        assert windows == 1
        self.calls["batch"] += 1

    def stage_ran(self, stage: str, seconds: float) -> None:
        self._note(stage, seconds)


async def speak(engine: engines.api.Engine, texts: list[str]) -> list[SegmentDone]:
    assert engine.default_voice is not None
    speaker.set("me")
    stream = await engine.open(engine.default_voice, Sampling(seed=4, max_speech_tokens=60))
    done = []
    for index, text in enumerate(texts):
        async for event in stream.speak(Segment(index, text)):
            if isinstance(event, SegmentDone):
                done.append(event)
    await stream.close()
    return done


def test_an_observer_hears_of_everything() -> None:
    recorder = Recorder()
    with asyncio.Runner() as runner:
        engine = engines.load(EngineConfig(model="random:tiny", device="cpu", max_streams=2), recorder)
        done = runner.run(speak(engine, ["Good morning.", "And good night."]))
        assert engine.device_memory() is None
        runner.run(engine.close())
    windows, tokens = sum(d.stats.windows for d in done), sum(d.stats.speech_tokens for d in done)
    assert recorder.speakers == {"me"}
    assert recorder.speech_tokens == tokens
    assert recorder.calls["prefill"] == recorder.calls["generated"] == 2
    for what in ("batch", "encoder", "cfm", "vocoder"):
        assert recorder.calls[what] == windows, what
    stages_s = sum(recorder.seconds[stage] for stage in ("encoder", "cfm", "vocoder"))
    assert stages_s <= sum(d.stats.s3gen_s for d in done)
    # the closing silence is not drawn
    assert tokens - 6 <= recorder.calls["step"] <= tokens + 20
    busiest, last = max(use.kv_cache_share for use in recorder.use), recorder.use[-1]
    assert 0 < busiest < 1
    assert last.kv_cache_share == 0
    prefix = 1 + len(engine.default_voice.t3_prompt_tokens)
    assert last.cached_positions == prefix, "the second segment reads the voice's part from the cache"
    assert prefix < last.read_positions < 3 * prefix
