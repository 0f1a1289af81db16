"""The baseline of `make bench-stream`: the way in which the public ports of the model stream, rewritten.

Every stream decodes alone: a chunk for every 25 speech tokens, with 50 tokens of left context and the voice's prompt
before it and with fresh noise; the vocoder runs on the chunk's mel alone, and the chunk is faded in. The model has one
lock, first come, first served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from engines.api import AudioChunk, Event, Segment, SegmentDone, SegmentStarted, SegmentStats
from engines.config import Sampling
from engines.model_spec import SAMPLE_RATE_HZ
from engines.playback import PlaybackClock
from engines.s3gen.noise import F32
from engines.s3gen.runtime import FlowBatch, Runtime, VocoderBatch
from engines.t3.backend import T3Backend, T3Request
from engines.voice import Voice

CHUNK_TOKENS = 25
LEFT_CONTEXT_TOKENS = 50
_FADE_SAMPLES = SAMPLE_RATE_HZ // 50


class Port:
    """One model behind one lock. `t3` and `runtime` are ours, so that only the streaming differs."""

    def __init__(self, t3: T3Backend, runtime: Runtime, text_tokens: tuple[int, ...]) -> None:
        self._t3, self._runtime, self._text_tokens = t3, runtime, text_tokens
        self._worker = ThreadPoolExecutor(1)
        self._random = np.random.default_rng(0)

    async def speak(self, segment: Segment, voice: Voice, sampling: Sampling) -> AsyncGenerator[Event, None]:
        loop = asyncio.get_running_loop()
        listener, started_s, speech_tokens, done, samples = PlaybackClock(SAMPLE_RATE_HZ), loop.time(), [], 0, 0
        ttfa_s = 0.0
        listener.begin_segment(started_s)
        yield SegmentStarted(segment, len(self._text_tokens))
        generation = self._t3.start(T3Request(self._text_tokens, voice, sampling))
        ended = False
        while not ended:
            new = await generation.next_speech_tokens()
            speech_tokens += new
            ended = not new
            while len(speech_tokens) - done >= CHUNK_TOKENS or (ended and done < len(speech_tokens)):
                stop = min(len(speech_tokens), done + CHUNK_TOKENS)
                chunk = await loop.run_in_executor(self._worker, self.decode, voice, speech_tokens[:stop], done)
                ttfa_s = ttfa_s or loop.time() - started_s
                listener.deliver(loop.time(), len(chunk))
                yield AudioChunk(segment.index, samples, chunk)
                samples, done = samples + len(chunk), stop
        stats = SegmentStats(
            samples=samples, ttfa_s=ttfa_s, underruns=listener.underruns, underrun_s=listener.underrun_s
        )
        yield SegmentDone(segment, stats)

    def decode(self, voice: Voice, speech_tokens: list[int], first_new: int) -> F32:
        """Samples of the tokens from `first_new` on."""
        context = speech_tokens[max(0, first_new - LEFT_CONTEXT_TOKENS) :]
        tokens = np.concatenate([voice.s3gen_prompt_tokens, np.asarray(context, np.int64)])[None]
        prompt_mel = np.zeros((1, 2 * tokens.shape[1], 80), np.float32)
        prompt_mel[0, : len(voice.s3gen_prompt_mel)] = voice.s3gen_prompt_mel
        noise = self._random.standard_normal(prompt_mel.shape, dtype=np.float32)
        lengths = np.array([tokens.shape[1]])
        mel = self._runtime.flow(FlowBatch(tokens, lengths, prompt_mel, noise, voice.x_vector[None]))
        return self.render(mel[:, -2 * (len(speech_tokens) - first_new) :])

    def render(self, mel: F32) -> F32:
        """The chunk's waveform from its own mel (1, T, 80) alone."""
        frames = mel.shape[1]
        batch = VocoderBatch(
            mel=mel,
            lengths=np.array([frames]),
            fixed_f0_hz=np.zeros((1, frames), np.float32),
            fixed_frames=np.zeros(1, np.int64),
            phase_cycles=np.zeros(1, np.float32),
            harmonic_cycles=np.zeros((1, 9), np.float32),
            noise=self._random.standard_normal((1, frames * 480), dtype=np.float32),
        )
        samples = self._runtime.vocoder(batch).waveform[0].copy()
        samples[:_FADE_SAMPLES] *= np.linspace(0, 1, _FADE_SAMPLES, dtype=np.float32)
        return samples
