"""Texts that people really send, on the shipped model: what is spoken, skipped or refused, on each surface."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

import mynah
from engines.model_spec import SAMPLES_PER_TOKEN, SILENCE_TAIL_TOKENS
from engines.text.speech_bound import max_speech_tokens
from tests.inputs.kinds import KINDS
from tests.inputs.surfaces import MAX_SPEECH_TOKENS, Shipped, call
from tests.inputs.text_cases import Case, rows

ROWS = tuple(rows())


def test_the_table_has_at_least_90_rows() -> None:
    assert len(ROWS) >= 90
    assert len({(surface, case.text, str(case.settings)) for surface, case in ROWS}) == len(ROWS)


def test_speech_of_the_shipped_model_is_bounded_by_its_text(runner: asyncio.Runner, at: Shipped) -> None:
    stages = at.engine.stages
    assert stages.runaway_tokens("Hi.") == max_speech_tokens("Hi.")
    at.engine.stages = replace(stages, runaway_tokens=lambda _: 9)

    async def speak() -> tuple[bytes, list[mynah.SegmentDone]]:
        data, done = b"", []
        async with at.client.stream(sampling=mynah.Sampling(seed=1)) as stream:
            await stream.send("This sentence takes more than nine speech tokens.")
            await stream.end()
            async for event in stream.events():
                data += event.data if isinstance(event, mynah.AudioChunk) else b""
                done += [event] if isinstance(event, mynah.SegmentDone) else []
        return data, done

    try:
        data, done = runner.run(speak())
    finally:
        at.engine.stages = stages
    assert [(each.end_reason, each.hit_token_limit) for each in done] == [("runaway", False)]
    samples = np.frombuffer(data, "<i2").astype(float)
    assert len(samples) == done[0].samples <= (10 + SILENCE_TAIL_TOKENS) * SAMPLES_PER_TOKEN
    assert np.abs(samples[-240:]).max() < 0.02 * np.abs(samples).max(), "it ends in a fade"


@pytest.mark.parametrize(
    ("surface", "case"), ROWS, ids=[f"{surface}-{ascii(case.text)[:40]}" for surface, case in ROWS]
)
def test_a_text_has_its_right_value(runner: asyncio.Runner, at: Shipped, surface: str, case: Case) -> None:
    result = runner.run(call(at, surface, case.text, case.settings))
    assert result.error == case.error
    if case.error:
        assert result.audio_bytes == 0
        return
    assert (result.audio_bytes > 0) == bool(case.spoken)
    if result.told_segments:
        assert (tuple(result.spoken), tuple(result.skipped)) == (case.spoken, case.skipped)
        assert case.said in ((), tuple(result.said))
        assert tuple(result.marks) == case.marks


def test_the_kinds_are_many() -> None:
    assert len(KINDS) >= 30


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_text_ends_and_loses_no_word(runner: asyncio.Runner, at: Shipped, name: str) -> None:
    kind = KINDS[name]
    result = runner.run(call(at, "stream", kind.text, {"markup": "strip"}))
    assert result.error == ""
    spoken, place = " ".join(result.spoken), 0
    for words in kind.keeps:
        place = spoken.find(words, place)
        assert place >= 0, f"{words!r} is not in {spoken!r}"
    assert 0 < len(result.spoken) <= kind.most_segments
    longest_bytes = 48_000 * (MAX_SPEECH_TOKENS / 25 + 1.0)  # of a segment, with the silence behind it
    assert 0 < result.audio_bytes <= longest_bytes * len(result.spoken)
