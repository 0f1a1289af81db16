"""Continuity: what a segment knows of the one before, the same however it was prepared, and where T3 puts it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.api import Segment
from engines.config import Sampling
from engines.continuity import Continuity, spoken
from engines.model_spec import SILENCE_SPEECH_TOKEN
from engines.s3gen.streaming.segment_decoder import SegmentDecoder
from engines.s3gen.streaming.windows import Window
from engines.t3.backend import T3Request
from engines.t3.decoder import T3Decoder
from engines.voice import Voice
from tests.engines.fakes import make_voice
from tests.engines.t3.setting import limits, net, run, voice
from tests.engines.test_pipeline import Bench
from tests.virtual_time import virtual_time

SILENCE = [SILENCE_SPEECH_TOKEN] * 3
TEXTS = ("x" * 30, "y" * 40, "z" * 20)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 60))
def test_the_context_is_the_end_of_the_speech_without_silence(tokens: list[int], prompt: int):
    context = Continuity(25, 28).t3_context([*tokens, *SILENCE], prompt)
    assert len(context) == min(len(tokens), 25, prompt // 2)
    assert context == tuple(tokens[len(tokens) - len(context) :])
    assert spoken([*tokens, *SILENCE]) == tuple(tokens)
    assert Continuity(0, 28).s3gen_context([*tokens, *SILENCE]) == tuple([*tokens, *SILENCE][-28:])
    assert Continuity(0, 0).t3_context(tokens, prompt) == ()


def contexts(*, continuity: bool, prepared: bool) -> list[tuple[int, ...]]:
    """Those of the requests whose segments were spoken."""

    async def run() -> list[tuple[int, ...]]:
        bench = Bench()
        bench.engine.stages = replace(bench.engine.stages, continuity=Continuity(25, 0))
        stream = await bench.engine.open(make_voice(60), Sampling(seed=3))
        segments = [Segment(index, text, continuity=continuity) for index, text in enumerate(TEXTS)]
        used, before = [], None
        for segment, upcoming in zip(segments, [*segments[1:], None], strict=True):
            async for _ in stream.speak(segment):
                if prepared and upcoming is not None:
                    stream.prepare(upcoming)
                current = stream._current
                if current is not None and current is not before:
                    used.append(current.continues[0])
                    before = current
        await stream.close()
        assert len(bench.t3.started) == len(TEXTS), "nothing was prepared in vain"
        return used

    return virtual_time(run())


@pytest.mark.parametrize("prepared", [True, False])
def test_a_segment_gets_the_end_of_the_one_before(prepared: bool):
    async def speech(index: int) -> tuple[int, ...]:
        bench = Bench()
        stream = await bench.engine.open(make_voice(60), Sampling(seed=3))
        utterance = await stream._take(Segment(index, TEXTS[index]))
        async for _ in stream.speak(Segment(index, TEXTS[index])):
            pass
        await utterance.cancel()
        tokens = stream._before
        await stream.close()
        return spoken(tokens)

    first, second = (virtual_time(speech(index)) for index in range(2))
    assert contexts(continuity=True, prepared=prepared) == [(), first[-25:], second[-25:]]
    assert contexts(continuity=False, prepared=prepared) == [(), (), ()]


def test_what_was_prepared_behind_other_speech_is_begun_again():
    """As after another draw of the segment before it."""

    async def run() -> None:
        bench = Bench()
        bench.engine.stages = replace(bench.engine.stages, continuity=Continuity(25, 0))
        stream = await bench.engine.open(make_voice(60), Sampling(seed=3))
        first, second = (Segment(index, TEXTS[index], continuity=True) for index in range(2))
        async for _ in stream.speak(first):
            stream.prepare(second)
        assert stream._prepared is not None
        stream._before = (7,) * 30
        async for _ in stream.speak(second):
            pass
        assert [len(request.context) for request in bench.t3.started] == [0, 25, 25]
        assert bench.t3.started[-1].context == (7,) * 25
        await stream.close()
        assert bench.at_rest

    virtual_time(run())


def with_prompt(of: Voice, prompt: list[int]) -> Voice:
    return replace(of, t3_prompt_tokens=np.array(prompt, np.int64))


@pytest.mark.parametrize("cached", [False, True])
def test_t3_reads_it_in_place_of_the_last_prompt_tokens(cached: bool):
    """As a voice with that prompt; the keys and values of the prompt before it are shared."""
    own, context, text = voice(), (11, 22, 33, 44), (1, 2, 3)
    prompt = own.t3_prompt_tokens.tolist()
    sampling = Sampling(seed=5, max_speech_tokens=12)
    other = with_prompt(own, [*prompt[: len(prompt) - len(context)], *context])
    expected = run(T3Decoder(net(), limits()), T3Request(text, other, sampling))
    decoder, plain = T3Decoder(net(), limits()), T3Request(text, own, sampling)
    before = run(decoder, plain) if cached else None
    read = decoder.prefilled_positions
    assert run(decoder, replace(plain, context=context)) == expected
    if cached:
        assert decoder.prefilled_positions - read == len(context) + len(text) + 1
        assert run(decoder, plain) == before, "the voice's own prefix is as it was"


def test_s3gen_s_context_is_before_the_segment_s_first_tokens():
    of, before = make_voice(20), tuple(range(100, 128))
    decoder = SegmentDecoder(of, 3, list(range(40)), before)
    bare = SegmentDecoder(of, 3, list(range(40)))
    first, later = Window(0, 0, 0, 10, 13, False), Window(1, 0, 10, 20, 23, False)
    row = decoder.flow_row(first)
    assert row.tokens.tolist() == [*of.s3gen_prompt_tokens.tolist(), *before, *range(13)]
    assert decoder.flow_row(later).tokens.tolist() == [*of.s3gen_prompt_tokens.tolist(), *before[10:], *range(23)]
    assert np.array_equal(row.noise[-26:], bare.flow_row(first).noise[-26:]), "the segment's own noise is the same"
    mel = np.arange(len(row.noise) * 80, dtype=np.float32).reshape(-1, 80)
    assert np.array_equal(decoder.block_of(first, mel), mel[-26:])
