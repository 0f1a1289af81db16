"""T3's continuous batching: which rows go through the net in a step, and what the drawn tokens mean.

There are no threads, event loops or clocks in it, so that a test can drive it step by step.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from engines.api import T3Use
from engines.errors import EngineFailure
from engines.model_spec import SPEECH_CODES
from engines.t3.alignment.tap import AlignmentTap, KeySlot
from engines.t3.backend import T3Request
from engines.t3.kv_cache import PrefixCache, SlotPool
from engines.t3.net import Net, Slot, Span
from engines.t3.passes import PassRow
from engines.t3.sampler import NOT_FINITE
from engines.t3.speech_tokens import SpeechTokens

_log = logging.getLogger(__name__)
# Prompt rows between two decode steps: on a CPU some 60 ms of Nano, which a running stream's buffer covers.
_PREFILL_CHUNK_POSITIONS = {"cpu": 64, "cuda": 512}


@dataclass(frozen=True)
class DecoderLimits:
    """How much a decoder holds and reads at once. KV cache memory is allocated when it is needed, up to these limits.

    max_streams              sequences decoded together; more wait their turn
    max_positions            prefix, text and speech of one sequence. The default is enough for 375 prompt tokens, 1000
                             speech tokens and some 670 text tokens (1000 characters of English are 250)
    prefill_chunk_positions  prompt rows read between two decode steps: running sequences wait that much longer.
                             None: 64 on a CPU, 512 on a GPU
    prefix_cache_bytes       for voices' prefixes, 28 MB for a full one in Nano and 74 MB in Turbo; 0: no cache
    """

    max_streams: int
    max_positions: int = 2048
    prefill_chunk_positions: int | None = None
    prefix_cache_bytes: int = 512 << 20


@dataclass(eq=False)
class Sequence:
    """One request on its way through the decoder. It holds a slot from its first prompt row to its last token."""

    request: T3Request
    speech: SpeechTokens
    slot_index: int = -1
    slot: Slot | None = None
    prompt: Tensor | None = None  # (P, ..., width) embeddings; None before its prefill begins and after it is done
    target_tokens: float = math.inf  # it is paused once it has this many
    made_ahead: bool = field(init=False)  # until it is promoted

    def __post_init__(self) -> None:
        self.made_ahead = self.request.made_ahead

    @property
    def decoding(self) -> bool:
        return bool(self.speech.raw)

    @property
    def paused(self) -> bool:
        return self.decoding and self.speech.count >= self.target_tokens


@dataclass(frozen=True)
class Progress:
    """The result of a step for one sequence. `over`: it has ended, well or with `error`, and holds nothing any more."""

    sequence: Sequence
    speech_tokens: list[int] = field(default_factory=list)
    over: bool = False
    error: EngineFailure | None = None

    @property
    def reportable(self) -> bool:
        """Whether there is something to report; a mark that was drawn is not reported."""
        return bool(self.speech_tokens) or self.over


_Plan = list[tuple[Sequence, Span[Slot]]]  # one row per decoding sequence that is not paused, then a prompt's chunk


def _most_urgent(sequences: Iterable[Sequence]) -> Sequence:
    """The first that was not made ahead, or the first."""
    return min(sequences, key=lambda sequence: sequence.made_ahead)


class T3Decoder:
    """All sequences of a backend: `add` queues one, every `step` takes each of them one row or one chunk further."""

    def __init__(self, net: Net, limits: DecoderLimits) -> None:
        self.max_positions = min(limits.max_positions, net.max_positions)
        self.prefilled_positions = 0  # prompt rows read so far; those taken from the prefix cache do not count
        self._cached_positions = 0  # those
        self._net = net
        self._chunk_positions = limits.prefill_chunk_positions or _PREFILL_CHUNK_POSITIONS[net.device.type]
        self._total_positions = limits.max_streams * self.max_positions
        self._waiting: list[Sequence] = []  # in order of arrival
        self._running: list[Sequence] = []  # in order of admission
        self._pass = net.new_pass(limits.max_streams, self.max_positions)
        self._slots = SlotPool(self._pass.new_slot, limits.max_streams)
        self._prefixes = PrefixCache(limits.prefix_cache_bytes)

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        return all(sequence.paused for sequence in self._running) and not (self._waiting and self._slots.free)

    @property
    def free_slots(self) -> int:
        return self._slots.free

    @property
    def use(self) -> T3Use:
        """The share of the KV cache in use, and how prompts were read so far."""
        held = sum(sequence.slot.length for sequence in self._running if sequence.slot is not None)
        return T3Use(held / self._total_positions, self.prefilled_positions, self._cached_positions)

    @property
    def failed_captures(self) -> int:
        """As EngineInfo.failed_captures, of this decoder's steps."""
        return int(getattr(self._pass, "failed_captures", 0))

    @property
    def sequences(self) -> list[Sequence]:
        """Everything that is not finished, running first."""
        return [*self._running, *self._waiting]

    def add(self, request: T3Request) -> Sequence:
        """Queue a request. First come, first served, for slots and for reading; those made ahead come last.

        Raises InvalidInput as `Net.check_prompt`.
        """
        max_prompt = self.max_positions - request.sampling.max_speech_tokens  # the last token drawn is not read again
        self._net.check_prompt(request.voice, request.text_tokens, max_prompt)
        rules = self._net.family.end
        speech = SpeechTokens(request.sampling.max_speech_tokens, request.runaway_tokens, rules)
        sequence = Sequence(request, speech)
        self._waiting.append(sequence)
        return sequence

    def promote(self, sequence: Sequence) -> None:
        """Let a sequence that was made ahead compete as one that was not. Idempotent, also after its end."""
        sequence.made_ahead = False

    def release(self, sequence: Sequence) -> None:
        """Forget a sequence in any state and free what it holds. Idempotent."""
        if sequence in self._running:
            self._running.remove(sequence)
            self._slots.give_back(sequence.slot_index)
            sequence.slot = sequence.prompt = None
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

    def step(self) -> list[Progress]:
        """Admit, read one row of every decoding sequence and one chunk of a prompt, draw, report.

        A failure ends the sequences it concerns and is reported with them; it is never raised.
        """
        with torch.inference_mode():
            self._admit()
            plan, progress = self._schedule()
            if not plan:
                return progress
            try:
                return progress + self._run(plan)
            except Exception as error:
                return progress + [self._fail(sequence, error) for sequence, _ in plan]

    def _admit(self) -> None:
        while self._waiting and self._slots.free:
            sequence = _most_urgent(self._waiting)
            self._waiting.remove(sequence)
            sequence.slot_index, sequence.slot = self._slots.take()
            self._pass.begin(sequence.slot_index, sequence.request.sampling)
            self._running.append(sequence)

    def _schedule(self) -> tuple[_Plan, list[Progress]]:
        """The rows to read in this step, and the sequences that failed because there is no memory for their slot."""
        decoding = [sequence for sequence in self._running if sequence.decoding and not sequence.paused]
        unread = [sequence for sequence in self._running if not sequence.decoding]
        plan: _Plan = []
        failed: list[Progress] = []
        for sequence in [*decoding, _most_urgent(unread)] if unread else decoding:
            try:
                plan.append((sequence, self._next_span(sequence)))
            except Exception as error:
                failed.append(self._fail(sequence, error))
        return plan, failed

    def _next_span(self, sequence: Sequence) -> Span[Slot]:
        slot = sequence.slot
        assert slot is not None
        if sequence.decoding:
            slot.reserve(slot.length + 1)
            return Span(slot, slot.length, 1, self._tap_of(sequence, slot))
        if sequence.prompt is None:
            self._begin_prompt(sequence, slot)
        assert sequence.prompt is not None
        rows = min(self._chunk_positions, sequence.prompt.shape[0] - slot.length)
        return Span(slot, slot.length, rows)

    def _tap_of(self, sequence: Sequence, slot: Slot) -> AlignmentTap | None:
        """The request's tap if the row to be read is a speech token; before its first, it gets the text's keys."""
        tap = sequence.request.tap
        if tap is None or sequence.speech.raw[-1] >= SPEECH_CODES:
            return None
        if not tap.begun:
            tap.begin(cast(KeySlot, slot), self._net.text_start(sequence.request.voice))
        return tap

    def _begin_prompt(self, sequence: Sequence, slot: Slot) -> None:
        """Embed the prompt and load the voice's prefix if it is cached; the rows behind it remain to be read."""
        request = sequence.request
        voice, sampling = request.voice, request.sampling
        sequence.prompt = self._net.embed_prompt(voice, request.text_tokens, request.context, sampling=sampling)
        slot.reserve(sequence.prompt.shape[0] + 1)
        prefix = self._prefixes.get(request.voice.key)
        if prefix is not None:
            slot.load(prefix)
            slot.length -= len(request.context)  # which stands at the prefix's end
            self._cached_positions += slot.length

    def _run(self, plan: _Plan) -> list[Progress]:
        """One pass; a token for every sequence whose prompt is read. One whose logits are not finite fails alone."""
        rows = [_pass_row(sequence, span) for sequence, span in plan]
        tokens = self._pass.run(rows)
        for sequence, span in plan:
            span.slot.length += span.rows
            if sequence.prompt is not None:
                self._after_chunk(sequence, span)
        due = [sequence for (sequence, _), row in zip(plan, rows, strict=True) if row.due]
        return [self._accept(*drawn) for drawn in zip(due, tokens, strict=True)]

    def _after_chunk(self, sequence: Sequence, span: Span[Slot]) -> None:
        self.prefilled_positions += span.rows
        voice = sequence.request.voice
        prefix, key = self._net.prefix_positions(voice), voice.key
        shared = not sequence.request.context and span.slot.length >= prefix
        if shared and self._prefixes.wants(key):
            self._prefixes.put(key, span.slot.copy_out(prefix))
        assert sequence.prompt is not None
        if span.slot.length == sequence.prompt.shape[0]:
            sequence.prompt = None

    def _accept(self, sequence: Sequence, token: int) -> Progress:
        if token == NOT_FINITE:
            return self._fail(sequence, ArithmeticError("logits are not finite"))
        speech_tokens = sequence.speech.accept(token)
        if sequence.speech.finished:
            self.release(sequence)
        return Progress(sequence, speech_tokens, over=sequence.speech.finished)

    def _fail(self, sequence: Sequence, error: Exception) -> Progress:
        _log.error("T3 failed under a request: %s", error, exc_info=error)
        self.release(sequence)
        failure = EngineFailure(f"T3 failed: {type(error).__name__}: {error}")
        failure.__cause__ = error
        return Progress(sequence, over=True, error=failure)


def _pass_row(sequence: Sequence, span: Span[Slot]) -> PassRow:
    if sequence.prompt is None:
        raw = sequence.speech.raw
        return PassRow(span, sequence.slot_index, raw[-1], drawn=len(raw))
    stop = span.start + span.rows
    chunk = sequence.prompt[span.start : stop]
    return PassRow(span, sequence.slot_index, chunk=chunk, due=stop == sequence.prompt.shape[0])
