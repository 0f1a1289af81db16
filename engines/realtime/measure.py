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
    """As ladder.Timings. One warm voice and one stream; windows of the schedule's largest step, which streams reach."""

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
        self._step, self._context = schedule.steps[-1], schedule.left_context_tokens
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
        hop, context = self._step.hop_tokens, 0 if decode == "cached" else self._context
        if decode == "cached":
            self._decode(runtime, Window(0, 0, 0, 1, 2, is_last=False))
        window = Window(0, 0, context, context + hop, context + self._step.block_tokens, is_last=False)
        times_s = [self._decode(runtime, window)]
        # the first call of a size allocates, and other programs may have run beside it
        while len(times_s) < _CALLS and sum(times_s) + times_s[-1] < _CALLS_S:
            times_s.append(self._decode(runtime, window))
        self._taken_s[decode, steps] = min(times_s)
        return min(times_s) / self._step.plays_s

    def expected_s(self, decode: str, steps: str) -> float:
        """As Timings.expected_s: a recomputed window's flow computes prompt and context too, a cached one's does so
        before its first call. The vocoder and the encoder, which steps do not repeat, are counted as if they did.
        """
        return max((self._expected_s(decode, steps, known) for known in self._taken_s), default=0.0)

    def _expected_s(self, decode: str, steps: str, known: tuple[str, str]) -> float:
        block, prompt = self._step.block_tokens, len(self._voice.s3gen_prompt_tokens)
        tokens = {"cached": block, "reference": prompt + self._context + block}
        taken_s = self._taken_s[known] * tokens[decode] / tokens[known[0]] * passes(steps) / passes(known[1])
        return taken_s * (1 + prompt / block) if decode == "cached" else taken_s

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
