"""A bound on what is kept of segments changes the time that their words take, and nothing else."""

from __future__ import annotations

import random
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engines.t3.alignment.pages import PAGE_POSITIONS, PagedSlot
from engines.t3.alignment.reader import ReadSegment, SegmentReader, ToRead
from engines.t3.alignment.tap import F32, AlignmentHeads
from engines.t3.backend import T3Request
from engines.t3.load import TorchNet
from engines.t3.model import T3Net
from tests.engines.t3 import setting
from tests.engines.t3.llama import setting as llama

HEADS = AlignmentHeads(((1, 2), (3, 0)))
SPEECH_TOKENS = 90
NO_BOUND = 1 << 40
ONE_SEGMENT_PAGES = 8  # the longest voice has 71 rows, what stands behind it 118


def requests_of(family: str) -> tuple[TorchNet, list[T3Request]]:
    """Segments of two voices, and one that goes on from another."""
    if family == "llama":
        return llama.net(), [llama.request(seed) for seed in range(1, 5)]
    voices = [setting.voice(1, prompt_tokens=40), setting.voice(2, prompt_tokens=70)]
    requests = [setting.request(seed, of=voices[seed % 2]) for seed in range(1, 5)]
    return setting.net(), [*requests, replace(requests[0], context=(7, 8, 9))]


def speech_of(seed: int) -> list[int]:
    return random.Random(seed).choices(range(6000), k=SPEECH_TOKENS)


def read_in_turns(reader: SegmentReader, net: TorchNet, requests: list[T3Request]) -> list[F32]:
    """All speech tokens of all segments, in passes over some of them each."""
    rng = random.Random(5)
    segments = [ReadSegment(request) for request in requests]
    parts: list[list[F32]] = [[] for _ in segments]
    while any(len(segment.tokens) < SPEECH_TOKENS for segment in segments):
        asked = rng.sample(range(len(segments)), rng.randint(1, len(segments)))
        jobs = {}
        for index in asked:
            read = len(segments[index].tokens)
            if read < SPEECH_TOKENS:
                jobs[index] = ToRead(segments[index], speech_of(index)[read : read + rng.randint(1, 30)])
        for index, rows in zip(jobs, reader.read(net, list(jobs.values())), strict=True):
            parts[index].append(rows)
    return [np.concatenate(rows) for rows in parts]


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of all pages that are alive, after each allocation."""
    seen: list[int] = []
    pages: list[weakref.ref[Tensor]] = []
    reserve = PagedSlot.reserve

    def noting(self: PagedSlot, positions: int) -> None:
        before = len(self._pages)
        reserve(self, positions)
        pages.extend(weakref.ref(page) for page in self._pages[before:])
        seen.append(sum(page.nbytes for each in pages if (page := each()) is not None))

    monkeypatch.setattr(PagedSlot, "reserve", noting)
    return seen


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.inference_mode()
def test_a_bound_of_one_segment_gives_the_same_rows(family: str, in_memory: list[int], monkeypatch: pytest.MonkeyPatch):
    net, requests = requests_of(family)
    free = SegmentReader(HEADS, 600, NO_BOUND)
    expected = read_in_turns(free, net, requests)
    assert all(len(rows) == SPEECH_TOKENS for rows in expected)
    without, passes = max(in_memory), free.passes
    del free
    in_memory.clear()
    bounded = SegmentReader(HEADS, 600)
    bound = ONE_SEGMENT_PAGES * PagedSlot(net.spec, net.device, net.dtype).page_bytes
    monkeypatch.setattr(bounded, "bound_bytes", lambda _: bound)
    for ours, theirs in zip(read_in_turns(bounded, net, requests), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert 0 < max(in_memory) <= bound < without
    assert bounded.passes > passes, "what was dropped is read anew"


@torch.inference_mode()
def test_what_was_used_least_recently_is_dropped_and_voices_behind_their_segments(monkeypatch: pytest.MonkeyPatch):
    net, requests = requests_of("gpt2")
    first, second, third = (ReadSegment(request) for request in requests[:3])
    reader = SegmentReader(HEADS, 600, NO_BOUND)
    for segment in (first, second):
        reader.read(net, [ToRead(segment, [1])])
    kept = reader.kept_bytes
    monkeypatch.setattr(reader, "bound_bytes", lambda _: kept)
    reader.read(net, [ToRead(first, [2])])
    reader.read(net, [ToRead(third, [1])])  # of the first one's voice
    assert [reader.keeps(segment) for segment in (first, second, third)] == [True, False, True]
    assert [key for key in reader._kept if isinstance(key, str)] == [second.request.voice.key, first.request.voice.key]


@torch.inference_mode()
def test_a_segment_that_is_over_takes_no_memory_and_its_voice_stays():
    net, requests = requests_of("gpt2")
    reader, segment = SegmentReader(HEADS, 600, NO_BOUND), ReadSegment(requests[0])
    reader.read(net, [ToRead(segment, [1, 2])])
    tap = reader._kept[segment].tap
    assert tap is not None
    assert tap.rows == 0, "queries are kept until their rows were read"
    reader.forget(segment)
    reader.forget(segment)
    assert list(reader._kept) == [requests[0].voice.key]


@torch.inference_mode()
def test_nothing_is_kept_of_a_pass_that_failed(monkeypatch: pytest.MonkeyPatch):
    net, requests = requests_of("gpt2")
    reader, segment = SegmentReader(HEADS, 600, NO_BOUND), ReadSegment(requests[0])
    expected = SegmentReader(HEADS, 600, NO_BOUND).read(net, [ToRead(ReadSegment(requests[0]), [1, 2, 3])])[0]
    rows = reader.read(net, [ToRead(segment, [1, 2])])[0]
    with monkeypatch.context() as broken:
        broken.setattr(T3Net, "forward", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            reader.read(net, [ToRead(segment, [3])])
    assert reader.kept_bytes == 0
    rows = np.concatenate([rows, reader.read(net, [ToRead(segment, [3])])[0]])
    np.testing.assert_allclose(rows, expected, atol=2e-5)


def test_pages_hold_what_is_written_wherever_it_begins():
    spec, cpu = setting.net().spec, torch.device("cpu")
    dim = spec.width // spec.heads
    rows = torch.randn(3 * PAGE_POSITIONS, 2, spec.heads, dim)
    voice = PagedSlot(spec, cpu, torch.float32)
    voice.reserve(50)
    voice.write(1, 0, rows[:50])
    slot = PagedSlot(spec, cpu, torch.float32, voice, 45)
    for start, stop in ((45, 46), (46, 80), (80, 96)):
        slot.reserve(stop)
        keys, values = slot.write(1, start, rows[start:stop])
        assert torch.equal(keys[0], rows[:stop, 0].transpose(0, 1))
        assert torch.equal(values[0], rows[:stop, 1].transpose(0, 1))
    assert torch.equal(slot.keys(1, 10, 40), rows[10:40, 0].transpose(0, 1))
    assert torch.equal(slot.keys(1, 40, 90), rows[40:90, 0].transpose(0, 1))
    assert slot.nbytes == 2 * slot.page_bytes
