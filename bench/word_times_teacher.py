"""Words of the teacher's speech, whose times its durations give, aligned by T3's heads. Needs hibari-tts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

from bench.word_times import Measured
from engines.api import WordTime
from engines.checkpoints.checkpoint import EMBEDDED, Checkpoint, default_cache_dir
from engines.conditioning.builtin import load_builtin
from engines.config import Sampling
from engines.model_spec import TINY
from engines.t3.alignment.calibrate import find_heads, kept_heads
from engines.t3.alignment.lent import LentNet
from engines.t3.alignment.sources import ForcedAligner
from engines.t3.backend import T3Request
from engines.t3.model import T3Net
from engines.text.encoder import TextEncoder
from engines.text.reading import Reading
from engines.text.tokenizer import TextTokenizer
from engines.words.timer import TimedWord, WordTimer, samples_of
from tools.tiny import codes
from tools.tiny.pronounce import Pronouncer
from tools.tiny.rows import Timed, spoken, timed_phones
from tools.tiny.teacher import Teacher


def teacher_errors(texts: Sequence[str]) -> Measured:
    """The errors over the texts whose tokens are the same for teacher and model."""
    return asyncio.run(_measure(texts))


async def _measure(texts: Sequence[str]) -> Measured:
    teacher, measured = Teacher(), Measured()
    say, voice = Pronouncer(teacher), load_builtin(EMBEDDED / "conds.pt")
    encoder = TextEncoder(TextTokenizer(EMBEDDED, TINY.t3.text_vocab), TINY, 1000)
    t3_path = Checkpoint(EMBEDDED, TINY).t3_path
    net = T3Net.load(t3_path, TINY, "cpu")
    heads, _ = kept_heads(t3_path, default_cache_dir(), lambda: find_heads(net, encoder, voice))
    assert heads is not None, "the shipped model aligns"
    aligner = ForcedAligner(LentNet(net.spec.layers, net), heads, net.max_positions)
    for text in texts:
        said = say(text)
        tokens = encoder(text)
        if said is None or len(said.tokens) != len(tokens):
            continue
        frames, f0_hz = teacher.timed(say.ids(said.characters))
        rows = spoken(said.characters, frames, f0_hz)
        if rows is None:
            continue
        speech = codes.encode(rows.rows(net.prefix_positions(voice))).tolist()
        _, source = aligner.start(T3Request(tokens, voice, Sampling()))
        timer = WordTimer(encoder.words(Reading(text, text)), len(tokens))
        timer.add(await source.rows(speech))
        given = [_word_time(timed) for timed in timer.take(len(speech), is_last=True)]
        phones = timed_phones(said.characters, frames)
        if not phones[-1].letter:  # the teacher ends in silence
            measured.add(given, _truth(encoder, text, phones, rows.begin_s))
    aligner.close()
    return measured


def _truth(encoder: TextEncoder, text: str, phones: list[Timed], begin_s: float) -> dict[int, tuple[float, float]]:
    """When each word's first phone begins and its last one ends in the teacher's sound, by the word's first char."""
    spans: dict[int, tuple[float, float]] = {}
    for phone, after in pairwise(phones):
        if phone.letter:  # no pause
            start_s = spans.get(phone.unit, (phone.start_s, 0.0))[0]
            spans[phone.unit] = (start_s, after.start_s)
    times = {}
    for word in encoder.words(Reading(text, text)):
        tokens = [token for token in range(word.first_token, word.stop_token) if token in spans]
        if tokens:
            times[word.start_char] = (spans[tokens[0]][0] - begin_s, spans[tokens[-1]][1] - begin_s)
    return times


def _word_time(timed: TimedWord) -> WordTime:
    word = timed.word
    start, stop = samples_of(timed.start_tokens), samples_of(timed.stop_tokens)
    return WordTime(word.text, word.start_char, word.end_char, start, stop, word.spoken)
