"""Reads segments by a teacher-forced pass: each voice once, each text behind its voice, and speech as it comes.

Keys and values that are kept have a bound in bytes. What was used least recently is dropped, and read anew from the
segment's start when its words are asked for again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from engines.t3.alignment.memory import KEPT_BYTES, PASS_ROWS, kept_bytes
from engines.t3.alignment.pages import PagedSlot, pages_for
from engines.t3.alignment.tap import F32, AlignmentHeads, AlignmentTap
from engines.t3.backend import T3Request
from engines.t3.load import TorchNet
from engines.t3.net import Span


@dataclass(eq=False)
class ReadSegment:
    """A segment whose words are read, and its speech tokens whose rows were returned."""

    request: T3Request
    tokens: list[int] = field(default_factory=list)
    prompt_rows: int = 0  # known once its prompt was embedded


@dataclass(frozen=True)
class ToRead:
    """A segment and the speech tokens behind those before."""

    segment: ReadSegment
    tokens: list[int]


@dataclass(frozen=True)
class _Kept:
    slot: PagedSlot
    tap: AlignmentTap | None = None  # of a segment


@dataclass(frozen=True)
class _Rows:
    """Rows that a sequence reads next: `embedded(i, j)` are [i, j) of `count`."""

    kept: _Kept
    count: int
    embedded: Callable[[int, int], Tensor]


class SegmentReader:
    """Keys and values of segments and of their voices, within a bound. One thread at a time."""

    def __init__(self, heads: AlignmentHeads, positions: int, at_most: int = KEPT_BYTES) -> None:
        """`positions`: of the longest sequence. `at_most`: as of `memory.kept_bytes`, which is the bound."""
        self._heads, self._positions, self._at_most = heads, positions, at_most
        # segments, and voices by their keys; least recently used first, and every segment before its voice
        self._kept: OrderedDict[ReadSegment | str, _Kept] = OrderedDict()
        self.passes = 0  # over speech, in all

    @property
    def kept_bytes(self) -> int:
        return sum(kept.slot.nbytes for kept in self._kept.values())

    def bound_bytes(self, net: TorchNet) -> int:
        """What may be kept of this net."""
        return kept_bytes(net.spec, net.spec.layers, self._positions, net.dtype.itemsize, self._at_most)

    def keeps(self, segment: ReadSegment) -> bool:
        """Whether the segment's keys and values are kept."""
        return segment in self._kept

    def read(self, net: TorchNet, jobs: Sequence[ToRead]) -> list[F32]:
        """The attention of each job's speech tokens, (tokens, text tokens). All of `net`'s work is done then.

        Nothing is kept after an exception.
        """
        results: dict[int, F32] = {}
        try:
            # those that are kept first, before others take their room
            waiting = sorted(enumerate(jobs), key=lambda each: not self.keeps(each[1].segment))
            while waiting:
                group = self._that_fit(net, [job for _, job in waiting])
                self.read_together(net, group)
                for (index, job), waited in zip(waiting, group, strict=False):
                    assert job is waited
                    results[index] = self._attention(job)
                waiting = waiting[len(group) :]
        except BaseException:
            self._kept.clear()
            raise
        return [results[index] for index in range(len(jobs))]

    def forget(self, segment: ReadSegment) -> None:
        """Free what is kept of a segment. Idempotent."""
        self._kept.pop(segment, None)

    def read_together(self, net: TorchNet, jobs: Sequence[ToRead]) -> None:
        """Read what fits. The host waits for nothing."""
        used = {job.segment for job in jobs} | {job.segment.request.voice.key for job in jobs}
        rows = []
        for job in jobs:
            again = [] if self.keeps(job.segment) else job.segment.tokens
            kept = self._kept.get(job.segment) or self._begin(net, job.segment, used)
            rows.append(self._speech_rows(net, kept, [*again, *job.tokens], len(job.segment.tokens) - len(again)))
        self.passes += self._forward(net, rows, used)
        for job in jobs:
            self._kept.move_to_end(job.segment)
        for job in jobs:
            self._kept.move_to_end(job.segment.request.voice.key)

    def _attention(self, job: ToRead) -> F32:
        tap = self._kept[job.segment].tap
        assert tap is not None
        attention = tap.attention(tap.rows - len(job.tokens), tap.rows)
        tap.forget_rows()
        job.segment.tokens += job.tokens
        return attention

    def _that_fit(self, net: TorchNet, jobs: Sequence[ToRead]) -> list[ToRead]:
        """The first jobs whose segments and voices are within the bound together, at least one."""
        fitting: list[ToRead] = []
        pages, voices = 0, set()
        for job in jobs:
            segment, voice = job.segment, job.segment.request.voice
            if not segment.prompt_rows:
                segment.prompt_rows = len(self._prompt(net, segment))
            prefix = net.prefix_positions(voice)
            own = segment.prompt_rows - self._shared(net, segment) + len(segment.tokens) + len(job.tokens)
            pages += pages_for(own) + (0 if voice.key in voices else pages_for(prefix))
            voices.add(voice.key)
            if fitting and pages * self._new_slot(net).page_bytes > self.bound_bytes(net):
                break
            fitting.append(job)
        return fitting

    def _begin(self, net: TorchNet, segment: ReadSegment, used: set[ReadSegment | str]) -> _Kept:
        """Read a segment's prompt, and its voice if that is not kept."""
        voice, prompt = segment.request.voice, self._prompt(net, segment)
        before, shared = self._kept.get(voice.key), self._shared(net, segment)
        if before is None:
            rows = self._prompt(net, replace(segment, request=replace(segment.request, context=())))
            before = self._kept[voice.key] = _Kept(self._new_slot(net))
            self._forward(net, [_rows_of(before, rows[: net.prefix_positions(voice)])], used)
        kept = self._kept[segment] = _Kept(
            self._new_slot(net, before.slot, shared), AlignmentTap(self._heads, len(segment.request.text_tokens))
        )
        self._forward(net, [_rows_of(_Kept(kept.slot), prompt[shared:])], used)
        assert kept.tap is not None
        kept.tap.begin(kept.slot, net.text_start(voice))
        return kept

    def _forward(self, net: TorchNet, reading: Sequence[_Rows], used: set[ReadSegment | str]) -> int:
        """Read all rows, at most PASS_ROWS in a pass, and return the number of passes."""
        done, passes = [0] * len(reading), 0
        while any(read < rows.count for read, rows in zip(done, reading, strict=True)):
            spans: list[Span[Any]] = []
            parts, room = [], PASS_ROWS
            for index, rows in enumerate(reading):
                count, slot = min(room, rows.count - done[index]), rows.kept.slot
                if count:
                    self._reserve(net, slot, slot.length + count, used)
                    parts.append(rows.embedded(done[index], done[index] + count))
                    spans.append(Span(cast(Any, slot), slot.length, count, rows.kept.tap))
                    done[index] += count
                    room -= count
            net.forward(torch.cat(parts), spans)
            for span in spans:
                span.slot.length += span.rows
            passes += 1
        return passes

    def _reserve(self, net: TorchNet, slot: PagedSlot, positions: int, used: set[ReadSegment | str]) -> None:
        missing, bound = slot.missing_bytes(positions), self.bound_bytes(net)
        while self.kept_bytes + missing > bound:
            oldest = next((each for each in self._kept if each not in used), None)
            assert oldest is not None, "the bound holds a segment of the greatest length, and no more are read together"
            self._drop(oldest)
        slot.reserve(positions)

    def _drop(self, which: ReadSegment | str) -> None:
        """Free a segment, or a voice and the segments behind it."""
        slot = self._kept.pop(which).slot
        for each in [each for each, kept in self._kept.items() if kept.slot.before is slot]:
            del self._kept[each]

    def _prompt(self, net: TorchNet, segment: ReadSegment) -> Tensor:
        request = segment.request
        unguided = replace(request.sampling, cfg_weight=0.0)
        return net.embed_prompt(request.voice, request.text_tokens, request.context, sampling=unguided)

    def _shared(self, net: TorchNet, segment: ReadSegment) -> int:
        """The positions that its voice's rows have in its prompt."""
        return net.prefix_positions(segment.request.voice) - len(segment.request.context)

    def _new_slot(self, net: TorchNet, before: PagedSlot | None = None, shared: int = 0) -> PagedSlot:
        return PagedSlot(net.spec, net.device, net.dtype, before, shared)

    def _speech_rows(self, net: TorchNet, kept: _Kept, tokens: Sequence[int], read: int) -> _Rows:
        """Speech tokens behind `read` others."""

        def embedded(start: int, stop: int) -> Tensor:
            return net.embed_speech(tokens[start:stop], range(read + start + 1, read + stop + 1))

        return _Rows(kept, len(tokens), embedded)


def _rows_of(kept: _Kept, rows: Tensor) -> _Rows:
    return _Rows(kept, len(rows), lambda start, stop: rows[start:stop])
