"""T3's step: which rows go through the net next, and what their tokens mean for each sequence.

Knows the net, slots and the sampler; knows no threads, no asyncio and no clock, so that a test can drive it step by
step. One thread at a time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from engines.api import T3Use
from engines.errors import EngineFailure, invalid_value
from engines.model_spec import START_SPEECH_TOKEN, T3Spec
from engines.t3.backend import T3Request
from engines.t3.kv_cache import KvSlot, PrefixCache, SlotPool
from engines.t3.model import Span, T3Net
from engines.t3.sampler import Sampler
from engines.t3.speech_tokens import SpeechTokens

_log = logging.getLogger(__name__)
_NOT_FINITE = ArithmeticError("logits are not finite")


@dataclass(frozen=True)
class DecoderLimits:
    """What the decoder may hold, and how much it reads at once.

    max_streams              sequences decoded together; more wait their turn
    max_positions            prefix + text + speech of one sequence
    prefill_chunk_positions  prompt rows read between two decode steps: running sequences wait that much longer
    prefix_cache_bytes       for voices' prefixes; 0 switches the cache off
    """

    max_streams: int
    max_positions: int
    prefill_chunk_positions: int
    prefix_cache_bytes: int


def prefix_positions(request: T3Request) -> int:
    """Positions that depend on the voice alone: the speaker and the prompt's speech tokens."""
    return 1 + len(request.voice.t3_prompt_tokens)


def check_request(request: T3Request, spec: T3Spec, max_positions: int) -> None:
    """Raises InvalidInput when the text is empty, has unknown ids, or cannot fit with the speech it may become."""
    if request.voice.t3_prefix is not None:
        allowed = "a voice that was made with this model, not by the published ONNX graphs"
        raise invalid_value("voice", request.voice.name, allowed, "VOICE_INCOMPATIBLE")
    text = request.text_tokens
    if not text:
        raise invalid_value("text_tokens", text, "at least one text token", "TEXT_EMPTY")
    unknown = next((token for token in text if not 0 <= token < spec.text_vocab), None)
    if unknown is not None:
        raise invalid_value("text_tokens", unknown, f"ids in [0, {spec.text_vocab})", "TEXT_TOKEN_UNKNOWN")
    # the last token drawn is not read again
    room = max_positions - prefix_positions(request) - 1 - request.sampling.max_speech_tokens
    if len(text) > room:
        raise invalid_value("text", f"{len(text)} text tokens", f"at most {room} text tokens", "TEXT_TOO_LONG")


@dataclass(eq=False)
class Sequence:
    """One request on its way through the decoder. It holds a slot from its first prompt row to its last token."""

    request: T3Request
    speech: SpeechTokens
    slot_index: int = -1
    slot: KvSlot | None = None
    prompt: Tensor | None = None  # (P, width) embeddings; None before its prefill begins and after it is done
    target_tokens: float = math.inf  # it rests once it has so many

    @property
    def decoding(self) -> bool:
        return bool(self.speech.raw)

    @property
    def paused(self) -> bool:
        return self.decoding and self.speech.speech_tokens >= self.target_tokens


@dataclass(frozen=True)
class Progress:
    """What a step did for one sequence. `over`: it has ended, well or with `error`, and holds nothing any more."""

    sequence: Sequence
    speech_tokens: list[int] = field(default_factory=list)
    over: bool = False
    error: EngineFailure | None = None

    @property
    def news(self) -> bool:
        """Whether anyone needs to hear of it: a mark that was drawn is none."""
        return bool(self.speech_tokens) or self.over


_Plan = list[tuple[Sequence, Span]]  # one row per decoding sequence that does not rest, then a chunk of one prompt


def _most_urgent(sequences: Iterable[Sequence]) -> Sequence:
    """The first whose listener waits for it, or the first."""
    return min(sequences, key=lambda sequence: sequence.request.made_ahead)


class T3Decoder:
    """All sequences of an engine. `add` queues one, every `step` takes all of them one row or one chunk further."""

    def __init__(self, net: T3Net, limits: DecoderLimits) -> None:
        self.prefilled_positions = 0  # prompt rows read so far; those taken from the prefix cache do not count
        self._cached_positions = 0  # those
        self._net, self._limits = net, limits
        self._waiting: list[Sequence] = []  # in order of arrival
        self._running: list[Sequence] = []  # in order of admission
        self._slots = SlotPool(net.spec, limits.max_streams, limits.max_positions, net.device)
        self._prefixes = PrefixCache(limits.prefix_cache_bytes)
        self._sampler = Sampler(limits.max_streams, net.device)

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        return all(sequence.paused for sequence in self._running) and not (self._waiting and self._slots.free)

    @property
    def free_slots(self) -> int:
        return self._slots.free

    @property
    def use(self) -> T3Use:
        """What is held now, and how prompts were read so far."""
        held = sum(sequence.slot.length for sequence in self._running if sequence.slot is not None)
        room = self._limits.max_streams * self._limits.max_positions
        return T3Use(held / room, self.prefilled_positions, self._cached_positions)

    @property
    def sequences(self) -> list[Sequence]:
        """Everything that is not finished, running first."""
        return [*self._running, *self._waiting]

    def add(self, request: T3Request) -> Sequence:
        """Queue a request. First come, first served, for slots and for reading; those made ahead come last.

        Raises InvalidInput as `check_request`.
        """
        check_request(request, self._net.spec, self._limits.max_positions)
        sequence = Sequence(request, SpeechTokens(request.sampling.max_speech_tokens))
        self._waiting.append(sequence)
        return sequence

    def release(self, sequence: Sequence) -> None:
        """Forget a sequence and free what it holds, wherever it stands. Idempotent."""
        if sequence in self._running:
            self._running.remove(sequence)
            self._slots.give_back(sequence.slot_index)
            sequence.slot = sequence.prompt = None
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

    def step(self) -> list[Progress]:
        """Admit, read one row of every decoding sequence and one chunk of the oldest prompt, draw, report.

        A failure ends the sequences it concerns and is reported with them; it is never raised.
        """
        with torch.inference_mode():
            self._admit()
            plan, progress = self._schedule()
            if not plan:
                return progress
            try:
                return progress + self._postprocess(plan, self._run(plan))
            except Exception as error:
                return progress + [self._fail(sequence, error) for sequence, _ in plan]

    def _admit(self) -> None:
        while self._waiting and self._slots.free:
            sequence = _most_urgent(self._waiting)
            self._waiting.remove(sequence)
            sequence.slot_index, sequence.slot = self._slots.take()
            self._sampler.begin(sequence.slot_index, sequence.request.sampling)
            self._running.append(sequence)

    def _schedule(self) -> tuple[_Plan, list[Progress]]:
        """Who reads what in this step, and who cannot (no memory for its slot, say)."""
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

    def _next_span(self, sequence: Sequence) -> Span:
        slot = sequence.slot
        assert slot is not None
        if sequence.decoding:
            slot.reserve(slot.length + 1)
            return Span(slot, slot.length, 1)
        if sequence.prompt is None:
            self._begin_prompt(sequence, slot)
        assert sequence.prompt is not None
        rows = min(self._limits.prefill_chunk_positions, sequence.prompt.shape[0] - slot.length)
        return Span(slot, slot.length, rows)

    def _begin_prompt(self, sequence: Sequence, slot: KvSlot) -> None:
        """[speaker][prompt speech tokens][text][start of speech]; of a known voice only the last two are read."""
        request, net = sequence.request, self._net
        prompt = [
            net.embed_speaker(request.voice.speaker_embedding),
            net.embed_speech(request.voice.t3_prompt_tokens.tolist()),
            net.embed_text(request.text_tokens),
            net.embed_speech([START_SPEECH_TOKEN]),
        ]
        sequence.prompt = torch.cat(prompt)
        slot.reserve(sequence.prompt.shape[0] + 1)
        known = self._prefixes.get(request.voice.key)
        if known is not None:
            slot.load(known)
            self._cached_positions += slot.length

    def _embeddings(self, plan: _Plan) -> Tensor:
        """The plan's rows, (R, width)."""
        last_tokens = [sequence.speech.raw[-1] for sequence, _ in plan if sequence.decoding]
        rows = [self._net.embed_speech(last_tokens)] if last_tokens else []
        sequence, span = plan[-1]
        if sequence.prompt is not None:
            rows.append(sequence.prompt[span.start : span.start + span.rows])
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _run(self, plan: _Plan) -> Tensor:
        """One pass through the net; the hidden state of every span's last row, (spans, width)."""
        hidden = self._net.forward(self._embeddings(plan), [span for _, span in plan])
        for sequence, span in plan:
            span.slot.length += span.rows
            if sequence.prompt is not None:
                self._after_chunk(sequence, span)
        last_rows = [rows - 1 for rows in accumulate(span.rows for _, span in plan)]
        return hidden[last_rows]

    def _after_chunk(self, sequence: Sequence, span: Span) -> None:
        self.prefilled_positions += span.rows
        prefix, key = prefix_positions(sequence.request), sequence.request.voice.key
        if span.slot.length >= prefix and self._prefixes.wants(key):
            self._prefixes.put(key, span.slot.copy_out(prefix))
        assert sequence.prompt is not None
        if span.slot.length == sequence.prompt.shape[0]:
            sequence.prompt = None

    def _postprocess(self, plan: _Plan, hidden: Tensor) -> list[Progress]:
        """Draw for every sequence whose prompt is read; one whose logits are not finite fails alone."""
        due = [row for row, (sequence, _) in enumerate(plan) if sequence.prompt is None]
        if not due:
            return []
        sequences = [plan[row][0] for row in due]
        logits = self._net.speech_logits(hidden[due])  # (due, 6563)
        finite: list[bool] = torch.isfinite(logits).all(-1).tolist()
        progress = [self._fail(s, _NOT_FINITE) for s, ok in zip(sequences, finite, strict=True) if not ok]
        if progress:
            logits, sequences = logits[finite], [s for s, ok in zip(sequences, finite, strict=True) if ok]
        if sequences:
            tokens = self._sampler.sample([s.slot_index for s in sequences], logits)
            progress += [self._accept(*drawn) for drawn in zip(sequences, tokens, strict=True)]
        return progress

    def _accept(self, sequence: Sequence, token: int) -> Progress:
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
