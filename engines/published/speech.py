"""Voices and waveforms from the published graphs: `speech_encoder` and `conditional_decoder`.

The decoder draws its own noise: two calls never give the same samples, so that windows of a segment could not be
joined. It therefore decodes whole segments.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import numpy as np

from engines.audio import with_gain
from engines.conditioning.builder import TARGET_LUFS
from engines.conditioning.reference import Reference
from engines.conditioning.sandbox import load_reference_sandboxed
from engines.errors import EngineFailure
from engines.model_spec import MEL_FRAMES_PER_TOKEN, SAMPLES_PER_TOKEN, SPEAKER_EMBEDDING_DIM
from engines.onnx.session import BoundSession, SessionSettings, open_session
from engines.published.graphs import CONDITIONAL_DECODER, NAME, SPEECH_ENCODER, PublishedGraphs
from engines.s3gen.runtime import F32, I64
from engines.version import VERSION
from engines.voice import MODEL, Voice


class PublishedVoiceBuilder:
    """Builds a Voice from reference audio by `speech_encoder`, which is opened at the first build. Thread-safe."""

    def __init__(
        self,
        published: PublishedGraphs,
        settings: SessionSettings,
        *,
        decode: Callable[[bytes], Reference] = load_reference_sandboxed,
    ) -> None:
        self._published, self._settings, self._decode = published, settings, decode
        self._lock = Lock()
        self._session: BoundSession | None = None
        self._outputs: list[str] = []

    def build(self, audio: bytes, name: str, *, normalize_loudness: bool = True) -> Voice:
        """A Voice from an audio file's bytes. Raises InvalidInput as `load_reference_sandboxed`.

        The encoder gives T3's prompt as embedded rows and no speaker embedding: that field is zero.
        """
        reference = self._decode(audio)
        gain_db = TARGET_LUFS - reference.loudness_lufs if normalize_loudness else 0.0
        samples = with_gain(reference.samples, gain_db)
        with self._lock:
            encoded = self._encode(samples)
        tokens, mel = encoded["audio_tokens"][0].astype(np.int64), encoded["speaker_features"][0]
        count = min(len(tokens), len(mel) // MEL_FRAMES_PER_TOKEN)
        return Voice(
            name=name,
            speaker_embedding=np.zeros(SPEAKER_EMBEDDING_DIM, np.float32),
            t3_prompt_tokens=tokens[:count].copy(),
            s3gen_prompt_tokens=tokens[:count].copy(),
            s3gen_prompt_mel=mel[: MEL_FRAMES_PER_TOKEN * count].copy(),
            x_vector=encoded["speaker_embeddings"][0].copy(),
            t3_prefix=encoded["audio_features"][0].copy(),
            metadata=reference.report.in_metadata(
                {
                    "duration_s": f"{reference.recorded_s:.3f}",
                    "loudness_lufs": f"{reference.loudness_lufs:.1f}",
                    "source": reference.source,
                    MODEL: NAME,
                    "mynah_version": VERSION,
                }
            ),
        )

    def similarity(self, voice: Voice, speech: F32) -> None:
        """None: the published set has no net for the speaker embedding alone."""

    def _encode(self, samples: F32) -> dict[str, F32]:
        if self._session is None:
            session = open_session(self._published.path(SPEECH_ENCODER), self._settings)
            self._outputs = [output.name for output in session.get_outputs()]
            self._session = BoundSession(session, self._settings)
        values = self._session({"audio_values": self._session.put(samples[None].astype(np.float32, copy=False))})
        return {name: value.numpy() for name, value in zip(self._outputs, values, strict=True)}


class PublishedWaveforms:
    """The WaveformRuntime on `conditional_decoder`."""

    name = "onnx-published"

    def __init__(self, published: PublishedGraphs, settings: SessionSettings) -> None:
        self._session = BoundSession(open_session(published.path(CONDITIONAL_DECODER), settings), settings)

    def waveform(self, voice: Voice, speech_tokens: I64) -> F32:
        """As WaveformRuntime.waveform. Raises EngineFailure if the graph returns another number of samples."""
        put = self._session.put
        inputs = {
            "speech_tokens": put(np.concatenate([voice.s3gen_prompt_tokens, speech_tokens])[None]),
            "speaker_embeddings": put(voice.x_vector[None]),
            "speaker_features": put(voice.s3gen_prompt_mel[None]),
        }
        samples: F32 = self._session(inputs)[0].numpy().reshape(-1)
        if len(samples) != len(speech_tokens) * SAMPLES_PER_TOKEN:
            raise EngineFailure(
                f"{CONDITIONAL_DECODER}.onnx gave {len(samples)} samples for {len(speech_tokens)} speech tokens, "
                f"expected {len(speech_tokens) * SAMPLES_PER_TOKEN}"
            )
        return samples
