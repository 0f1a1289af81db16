"""The times of T3's steps and S3Gen's windows on this machine, on the nets that will serve."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from engines.model_spec import (
    GUIDED_STEPS,
    MEANFLOW_STEPS,
    MEL_BANDS,
    MEL_FRAMES_PER_TOKEN,
    SPEAKER_EMBEDDING_DIM,
    SPEECH_CODES,
    SPEECH_TOKENS_PER_S,
    X_VECTOR_DIM,
)
from engines.s3gen.runtime import Runtime
from engines.s3gen.streaming.schedule import Schedule
from engines.s3gen.streaming.segment_decoder import SegmentDecoder, decode_windows
from engines.s3gen.streaming.windows import Window
from engines.t3.backend import T3Request
from engines.t3.decoder import DecoderLimits, T3Decoder
from engines.t3.net import Net
from engines.voice import Voice

_TEXT_TOKENS = 30
_STEPS = 12
_CALLS, _CALLS_S = 3, 3.0  # a window's call is repeated this often, as long as all of them take no longer than this
_PROMPT_TOKENS = 250  # a voice of 10 s, the longest prompt
_T3_PROMPT_TOKENS = 375


class MeasuredTimings:
    """As ladder.Timings. One warm voice and one stream, whose windows take the schedule's steps: some nine seconds of
    speech. The first and the last of them are measured, and those between lie on the line through both, by tokens."""

    def __init__(
        self,
        t3_net: Callable[[str], Net],
        s3gen_runtime: Callable[[str, str], Runtime],
        schedule: Schedule,
        voice: Voice | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`t3_net` by precision, `s3gen_runtime` by decode mode and steps; `voice`: None for one of the longest
        prompt."""
        self._t3_net, self._s3gen_runtime, self._clock = t3_net, s3gen_runtime, clock
        self._voice = voice or _longest_voice()
        self._schedule = schedule
        self._taken_s: dict[tuple[str, str], float] = {}  # of a window

    def t3_s(self, t3_dtype: str) -> float:
        """As Timings.t3_s."""
        net = self._t3_net(t3_dtype)
        decoder = T3Decoder(net, DecoderLimits(1))
        text_tokens = tuple(range(1, _TEXT_TOKENS + 1))
        sampling = replace(net.family.sampling, seed=1, max_speech_tokens=3 * _STEPS)
        sequence = decoder.add(T3Request(text_tokens, self._voice, sampling))
        while not sequence.decoding and not decoder.idle:
            decoder.step()
        taken_s: list[float] = []
        while not decoder.idle and len(taken_s) < _STEPS:
            began_s = self._clock()
            decoder.step()
            taken_s.append(self._clock() - began_s)
        # other programs lengthen steps, nothing shortens them
        return SPEECH_TOKENS_PER_S * min(taken_s, default=0.0)

    def s3gen_s(self, decode: str, steps: str) -> float:
        """As Timings.s3gen_s. The voice's prompt is cached before the clock starts."""
        runtime = self._s3gen_runtime(decode, steps)
        if decode == "cached":
            self._decode(runtime, Window(0, 0, 0, 1, 2, is_last=False))
        windows = [Window(0, 0, *window, is_last=False) for window in self._windows(decode)]
        first_s, last_s = (self._window_s(runtime, window) for window in (windows[0], windows[-1]))
        self._taken_s[decode, steps] = last_s
        tokens = [self._tokens(decode, window.lookahead_stop) for window in windows]
        slope_s = max(0.0, last_s - first_s) / max(1, tokens[-1] - tokens[0])
        computing_s = sum(first_s + slope_s * (count - tokens[0]) for count in tokens)
        return computing_s / sum(step.plays_s for step in self._schedule.steps)

    def _windows(self, decode: str) -> list[tuple[int, int, int]]:
        """(start, stop, end of lookahead) of the steps' windows, counted from where their left context begins."""
        windows, decoded = [], 0
        for step in self._schedule.steps:
            start = 0 if decode == "cached" else min(decoded, self._schedule.left_context_tokens)
            windows.append((start, start + step.hop_tokens, start + step.block_tokens))
            decoded += step.hop_tokens
        return windows

    def _tokens(self, decode: str, window_tokens: int) -> int:
        """Those that a window sends through the flow."""
        return window_tokens + (0 if decode == "cached" else len(self._voice.s3gen_prompt_tokens))

    def _window_s(self, runtime: Runtime, window: Window) -> float:
        times_s = [self._decode(runtime, window)]
        # the first call of a size allocates, and other programs may have run beside it
        while len(times_s) < _CALLS and sum(times_s) + times_s[-1] < _CALLS_S:
            times_s.append(self._decode(runtime, window))
        return min(times_s)

    def expected_s(self, decode: str, steps: str) -> float:
        """As Timings.expected_s: a recomputed window's flow computes prompt and context too, a cached one's does so
        before its first call. The vocoder and the encoder, which steps do not repeat, are counted as if they did.
        """
        return max((self._expected_s(decode, steps, known) for known in self._taken_s), default=0.0)

    def _expected_s(self, decode: str, steps: str, known: tuple[str, str]) -> float:
        first, last = (self._tokens(decode, self._windows(decode)[i][-1]) for i in (0, -1))
        known_last = self._tokens(known[0], self._windows(known[0])[-1][-1])
        tokens = first + last + (len(self._voice.s3gen_prompt_tokens) if decode == "cached" else 0)
        return self._taken_s[known] * tokens / known_last * passes(steps) / passes(known[1])

    def _decode(self, runtime: Runtime, window: Window) -> float:
        decoder = SegmentDecoder(self._voice, seed=0, speech_tokens=_speech_tokens(window.lookahead_stop))
        began_s = self._clock()
        decode_windows(runtime, [(decoder, window)])
        return self._clock() - began_s


def passes(steps: str) -> int:
    """How often the CFM is computed for a row; "auto" is the only number of steps there is."""
    return 2 * GUIDED_STEPS if steps == str(GUIDED_STEPS) else MEANFLOW_STEPS


def _speech_tokens(count: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(0).integers(0, SPEECH_CODES, count)]


def _longest_voice() -> Voice:
    """A voice that nothing is known of, with prompts as long as they become."""
    rng = np.random.default_rng(0)
    mel = rng.normal(-5, 2, (_PROMPT_TOKENS * MEL_FRAMES_PER_TOKEN, MEL_BANDS)).astype(np.float32)
    return Voice(
        name="measured",
        speaker_embedding=np.zeros(SPEAKER_EMBEDDING_DIM, np.float32),
        t3_prompt_tokens=np.array(_speech_tokens(_T3_PROMPT_TOKENS)),
        s3gen_prompt_tokens=np.array(_speech_tokens(_PROMPT_TOKENS)),
        s3gen_prompt_mel=mel,
        x_vector=rng.standard_normal(X_VECTOR_DIM, np.float32),
    )
