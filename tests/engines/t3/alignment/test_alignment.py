"""Heads that align are found, observed beside decoding and by a pass of their own; words come out of the pipeline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import engines
from engines.api import AudioChunk, Segment, SegmentDone, Words
from engines.checkpoints.checkpoint import EMBEDDED, Checkpoint
from engines.conditioning.builtin import load_builtin
from engines.config import EngineConfig, Sampling
from engines.errors import EngineFailure
from engines.kernels.dense import WeightFormat, fp16_supported
from engines.model_spec import SAMPLES_PER_TOKEN, TINY
from engines.t3.alignment.calibrate import find_heads, kept_heads, speak
from engines.t3.alignment.lent import LentNet
from engines.t3.alignment.setup import find_alignment
from engines.t3.alignment.sources import ForcedAligner, TappedAligner
from engines.t3.alignment.tap import AlignmentHeads
from engines.t3.backend import T3Request
from engines.t3.decoder import DecoderLimits, T3Decoder
from engines.t3.model import T3Net
from engines.text.encoder import TextEncoder
from engines.text.tokenizer import TextTokenizer
from engines.voice import Voice
from tests.engines.t3.alignment.speaking import spoken_events
from tests.engines.t3.setting import net as random_net
from tests.engines.t3.setting import voice as random_voice

TEXT = "The old train leaves at seven, with many people."
SAMPLING = Sampling(seed=3)


@pytest.fixture(scope="module")
def shipped() -> T3Net:
    return T3Net.load(Checkpoint(EMBEDDED, TINY).t3_path, TINY, "cpu")


@pytest.fixture(scope="module")
def voice() -> Voice:
    return load_builtin(EMBEDDED / "conds.pt")


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(TextTokenizer(EMBEDDED, TINY.t3.text_vocab), TINY, 1000)


@pytest.fixture(scope="module")
def heads(shipped: T3Net, encoder: TextEncoder, voice: Voice) -> AlignmentHeads:
    found = find_heads(shipped, encoder, voice)
    assert found is not None
    return found


def test_the_guided_heads_of_the_shipped_model_are_found(heads: AlignmentHeads):
    """Its training guided heads 0 of layer 1 and 0, 1 of layer 2 to the spoken token, others to those behind it."""
    assert set(heads.heads) == {(1, 0), (2, 0), (2, 1)}
    assert heads.net_layers == 3


@pytest.mark.parametrize("weights", ["float32", *(["float16", "int8"] if fp16_supported() else [])])
def test_they_are_found_however_weights_keys_and_values_are_kept(
    weights: WeightFormat, encoder: TextEncoder, voice: Voice, heads: AlignmentHeads
):
    net = T3Net.load(Checkpoint(EMBEDDED, TINY).t3_path, TINY, "cpu", weights=weights)
    found = find_heads(net, encoder, voice)
    assert found is not None
    assert set(found.heads) == set(heads.heads)


def test_no_head_of_random_weights_aligns(encoder: TextEncoder):
    assert find_heads(random_net(), encoder, random_voice()) is None


def test_the_choice_is_kept_by_the_identity_of_the_weights(tmp_path: Path):
    weights, calls = tmp_path / "t3.safetensors", []

    def find(found: AlignmentHeads | None) -> AlignmentHeads | None:
        calls.append(found)
        return found

    heads = AlignmentHeads(((1, 2), (3, 0)))
    weights.write_bytes(b"one")
    assert kept_heads(weights, tmp_path, lambda: find(heads)) == (heads, True)
    assert kept_heads(weights, tmp_path, lambda: find(heads)) == (heads, False)
    weights.write_bytes(b"other weights")
    assert kept_heads(weights, tmp_path, lambda: find(None)) == (None, True)
    assert kept_heads(weights, tmp_path, lambda: find(heads)) == (None, False)
    for file in (tmp_path / "alignment").iterdir():
        file.write_text(json.dumps({"heads": "damaged"}))
    assert kept_heads(weights, tmp_path, lambda: find(heads)) == (heads, True)
    assert len(calls) == 3


@pytest.fixture
def aligners(shipped: T3Net, heads: AlignmentHeads) -> Iterator[tuple[TappedAligner, ForcedAligner]]:
    few_layers = T3Net.load(Checkpoint(EMBEDDED, TINY).t3_path, TINY, "cpu", layers=heads.net_layers)
    forced = ForcedAligner(LentNet(heads.net_layers, few_layers), heads, 2048)
    yield TappedAligner(heads), forced
    forced.close()


def test_a_pass_beside_sees_what_the_steps_see_in_any_pieces(
    shipped: T3Net, voice: Voice, encoder: TextEncoder, aligners: tuple[TappedAligner, ForcedAligner]
):
    tapped, forced = aligners
    tokens = encoder(TEXT)
    request, source = tapped.start(T3Request(tokens, voice, SAMPLING))
    decoder = T3Decoder(shipped, DecoderLimits(1))
    sequence = decoder.add(request)
    while not sequence.speech.finished:
        decoder.step()
    speech = [token for token in sequence.speech.raw if token < 6561]
    observed = asyncio.run(source.rows(speech))
    assert observed.shape == (len(speech), len(tokens))

    async def beside() -> np.ndarray:
        _, other = forced.start(T3Request(tokens, voice, SAMPLING))
        return np.concatenate([await other.rows(speech[:count]) for count in (1, 2, 9, len(speech), len(speech))])

    assert np.allclose(observed, asyncio.run(beside()), atol=2e-3)
    assert observed.max(1).mean() > 0.9


def test_segments_that_wait_share_a_pass(
    shipped: T3Net, voice: Voice, encoder: TextEncoder, aligners: tuple[TappedAligner, ForcedAligner]
):
    _, forced = aligners
    texts = [TEXT, "We open at noon."]
    requests = [T3Request(encoder(text), voice, SAMPLING) for text in texts]
    speech = [speak(shipped, voice, request.text_tokens, SAMPLING) for request in requests]

    async def alone() -> list[np.ndarray]:
        return [await forced.start(r)[1].rows(s) for r, s in zip(requests, speech, strict=True)]

    async def together() -> list[np.ndarray]:
        sources = [forced.start(request)[1] for request in requests]
        return list(await asyncio.gather(*(a.rows(s) for a, s in zip(sources, speech, strict=True))))

    expected = asyncio.run(alone())
    for one, other in zip(expected, asyncio.run(together()), strict=True):
        assert np.allclose(one, other, atol=1e-4)


def test_a_pass_that_fails_fails_its_segments_alone(
    voice: Voice, encoder: TextEncoder, aligners: tuple[TappedAligner, ForcedAligner], monkeypatch: pytest.MonkeyPatch
):
    _, forced = aligners
    request = T3Request(encoder(TEXT), voice, SAMPLING)
    with monkeypatch.context() as patched:
        patched.setattr(T3Net, "forward", lambda *_: 1 / 0)
        with pytest.raises(EngineFailure, match="alignment failed"):
            asyncio.run(forced.start(request)[1].rows([1, 2]))
    assert len(asyncio.run(forced.start(request)[1].rows([1, 2]))) == 2


@pytest.mark.parametrize(
    ("config", "random_weights", "reason"),
    [(EngineConfig(word_times="off"), False, "switched off"), (EngineConfig(), True, "random")],
)
def test_an_engine_without_word_times_says_why(
    config: EngineConfig, random_weights: bool, reason: str, encoder: TextEncoder, voice: Voice
):
    found = find_alignment(config, Checkpoint(EMBEDDED, TINY, random_weights=random_weights), "cpu", encoder, voice)
    assert found.heads is None
    assert reason in found.notice


@pytest.fixture(scope="module")
def engine() -> Iterator[engines.Engine]:
    one = engines.load(EngineConfig(model="tiny", threads=1))
    yield one
    asyncio.run(one.close())


def test_every_word_comes_with_the_chunk_that_holds_its_end(engine: engines.Engine):
    assert engine.info.word_times
    segments = [Segment(0, TEXT, word_times=True), Segment(1, 'Then "nobody" came back.', word_times=True)]
    events = asyncio.run(spoken_events(engine, segments))
    made: dict[int, int] = {0: 0, 1: 0}
    before, written, ends = 0, {0: "", 1: ""}, {0: 0, 1: 0}
    for event in events:
        if isinstance(event, AudioChunk):
            before = made[event.segment_index]
            made[event.segment_index] += len(event.samples)
        if isinstance(event, Words):
            for word in event.words:
                assert before - SAMPLES_PER_TOKEN <= word.end_sample <= made[event.segment_index]
                assert ends[event.segment_index] <= word.start_sample < word.end_sample
                ends[event.segment_index] = word.end_sample
                written[event.segment_index] += word.text + " "
    assert written == {0: "The old train leaves at seven with many people ", 1: "Then nobody came back "}


def test_a_segment_that_asks_for_nothing_gets_the_same_bytes_and_no_words(engine: engines.Engine):
    with_words = asyncio.run(spoken_events(engine, [Segment(0, TEXT, word_times=True)]))
    without = asyncio.run(spoken_events(engine, [Segment(0, TEXT)]))
    assert not [event for event in without if isinstance(event, Words)]
    samples = [
        np.concatenate([event.samples for event in events if isinstance(event, AudioChunk)])
        for events in (with_words, without)
    ]
    assert np.array_equal(*samples)
    assert isinstance(without[-1], SegmentDone)


def test_words_follow_the_speed(engine: engines.Engine):
    def starts(speed: float) -> list[int]:
        events = asyncio.run(spoken_events(engine, [Segment(0, TEXT, speed=speed, word_times=True)]))
        return [word.start_sample for event in events if isinstance(event, Words) for word in event.words]

    assert starts(2.0) == [round(start / 2) for start in starts(1.0)]


def test_words_belong_to_the_sound_that_is_loud(engine: engines.Engine):
    events = asyncio.run(spoken_events(engine, [Segment(0, "Wait for me, please.", word_times=True)]))
    audio = np.concatenate([event.samples for event in events if isinstance(event, AudioChunk)])
    words = [word for event in events if isinstance(event, Words) for word in event.words]
    assert [word.text for word in words] == ["Wait", "for", "me", "please"]
    for word in words:
        assert np.abs(audio[word.start_sample : word.end_sample]).max() > 0.05


def test_words_are_given_up_with_the_segment(engine: engines.Engine):
    async def leave() -> None:
        voice = engine.default_voice
        assert voice is not None
        stream = await engine.open(voice, SAMPLING)
        async for event in stream.speak(Segment(0, TEXT, word_times=True)):
            if isinstance(event, Words):
                break
        await stream.close()

    asyncio.run(leave())
