"""Subtitles from words: lines that can be read, as SRT and as WebVTT."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mynah
from mynah.client.subtitles import Subtitles, subtitle_format

TEXT = '"Well," she said, "this goes on for longer than one line can hold." And <so> on & on.'


def subtitles(text: str = TEXT, *, word_s: float = 0.3, gap_s: float = 0.1, segment: int = 0) -> Subtitles:
    made = Subtitles(1000)
    made.add(mynah.SegmentStarted(segment, 0, text, 1, 1))
    words, at = [], 0
    for number, word in enumerate(text.split()):
        start = text.index(word, at)
        at = start + len(word)
        begin = round(number * (word_s + gap_s) * 1000)
        words.append(mynah.WordTime(word, start, at, begin, begin + round(word_s * 1000), word))
    made.add(mynah.Words(segment, tuple(words[:3])))
    made.add(mynah.Words(segment, tuple(words[3:])))
    return made


def test_a_cue_is_short_and_keeps_the_marks_of_the_text():
    cues = subtitles().cues()
    assert " ".join(cue.text for cue in cues) == TEXT
    assert all(len(cue.text) <= 44 for cue in cues)
    assert all(one.end_s <= later.start_s for one, later in pairwise(cues))


def test_a_pause_and_a_segment_end_a_cue():
    assert len(subtitles("One two three.", gap_s=1.5).cues()) == 3
    both = subtitles("One.")
    both.add(mynah.SegmentStarted(1, 0, "Two.", 1, 1))
    both.add(mynah.Words(1, (mynah.WordTime("Two", 0, 3, 400, 700, "Two"),)))
    assert [cue.text for cue in both.cues()] == ["One.", "Two."]


def test_marks_that_are_not_spoken_are_left_out():
    text = "**See** [the docs](https://x.org/page) now—`please`!"
    silent = [(text.index(mark), len(mark)) for mark in ("**", "** ", "[", "](https://x.org/page)", "`", "`!")]
    silent = [(at, 2 if mark == 3 else 1 if text[at] == "`" else mark) for at, mark in silent]
    made = subtitles("")
    spans = tuple(mynah.SpokenSpan(at, at, at, at + chars) for at, chars in silent)
    made.add(mynah.SegmentStarted(1, 0, text, 1, 1, spoken_spans=spans))
    for number, word in enumerate(("See", "the", "docs", "now", "please")):
        at = text.index(word)
        made.add(mynah.Words(1, (mynah.WordTime(word, at, at + len(word), number, number + 1, word),)))
    assert [cue.text for cue in made.cues()] == ["See the docs now—please!"]


def test_srt():
    assert subtitles("One two.").srt() == "1\n00:00:00,000 --> 00:00:00,700\nOne two.\n\n"


def test_vtt_escapes_what_would_be_markup():
    assert subtitles("<b> & c").vtt() == "WEBVTT\n\n00:00:00.000 --> 00:00:01.100\n&lt;b&gt; &amp; c\n\n"


def test_hours():
    late = Subtitles(1)
    late.add(mynah.Words(0, (mynah.WordTime("late", 0, 4, 3_723, 3_724, "late"),)))
    assert late.srt().splitlines()[1] == "01:02:03,000 --> 01:02:04,000"


@given(st.text(max_size=30).filter(lambda name: not name.lower().endswith((".srt", ".vtt"))))
def test_another_file_name_is_refused(name: str):
    with pytest.raises(mynah.InvalidArgument) as refused:
        subtitle_format(name)
    assert refused.value.reason == "SUBTITLES_NAME_INVALID"


@pytest.mark.parametrize(("name", "found"), [("a.srt", "srt"), ("b.c/A.VTT", "vtt")])
def test_the_suffix_counts(name: str, found: str):
    assert subtitle_format(name) == found
