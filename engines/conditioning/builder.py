"""Makes a Voice from reference audio: which net gets which part of the recording, at which sample rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import nn

from engines.audio import Samples, loudness_lufs, resample, resample_windowed_sinc, with_gain
from engines.checkpoints.checkpoint import Checkpoint
from engines.checkpoints.weights import load_tensors
from engines.conditioning import speaker, tokenizer, xvector
from engines.conditioning.mel import prompt_mel
from engines.conditioning.reference import Reference
from engines.conditioning.sandbox import load_reference_sandboxed
from engines.model_spec import (
    MAX_S3GEN_PROMPT_TOKENS,
    MEL_FRAMES_PER_TOKEN,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_TOKEN,
    SPEECH_TOKENS_PER_S,
)
from engines.packed_linear import packing_available
from engines.s3gen.nets.packing import pack
from engines.version import VERSION
from engines.voice import MODEL, Voice

TARGET_LUFS = -27.0
_LEVEL = "level_lufs"  # metadata key: the loudness at which the recording was read
_S3GEN_SAMPLES = MAX_S3GEN_PROMPT_TOKENS * SAMPLES_PER_TOKEN  # 10 s at 24 kHz


@dataclass(frozen=True)
class _Nets:
    speaker: speaker.SpeakerEncoder
    tokenizer: tokenizer.SpeechTokenizer
    xvector: xvector.XVectorEncoder


class VoiceBuilder:
    """Makes voices from recordings. Thread-safe: decoding runs concurrently, the nets serve one caller at a time.

    The nets are loaded at the first build, memory-mapped on a CPU; `load` loads them earlier.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        decode: Callable[[bytes], Reference] = load_reference_sandboxed,
    ) -> None:
        self._checkpoint = checkpoint
        self._decode = decode
        self._device = torch.device(device)
        self._lock = Lock()
        self._nets: _Nets | None = None

    def load(self) -> None:
        """Load the nets. Raises CheckpointError naming every tensor that is missing or has another shape."""
        with self._lock:
            self._loaded()

    def build(self, audio: bytes, name: str, *, normalize_loudness: bool = True) -> Voice:
        """Make a Voice from the bytes of an audio file, brought to -27 LUFS first unless `normalize_loudness` is False
        or the model was trained on references of every loudness.

        Raises InvalidInput if the audio cannot be used (see `load_reference`), and CheckpointError as `load`.
        Source: upstream's `prepare_conditionals` of ChatterboxTurboTTS and ChatterboxTTS, and S3Gen's embed_ref.
        """
        reference = self._decode(audio)
        normalizes = normalize_loudness and self._checkpoint.spec.conditioning.normalizes_loudness
        level_lufs = TARGET_LUFS if normalizes else reference.loudness_lufs
        samples = with_gain(reference.samples, level_lufs - reference.loudness_lufs)
        metadata = self._metadata(reference) | {_LEVEL: f"{level_lufs:.1f}"}
        with self._lock:
            return self._condition(samples, name, metadata)

    def similarity(self, voice: Voice, speech: Samples) -> float:
        """Returns the cosine of the voice's speaker embedding and that of at least 0.4 s of 24 kHz speech, not silent.

        The net depends on the level, so the speech is brought to the recording's. Raises CheckpointError as `load`.
        """
        level_lufs = float(voice.metadata.get(_LEVEL, TARGET_LUFS))
        levelled = with_gain(speech, level_lufs - loudness_lufs(speech, SAMPLE_RATE_HZ))
        with self._lock:
            embedding = self._loaded().speaker.embed(resample(levelled, SAMPLE_RATE_HZ, speaker.RATE_HZ))
        return float(embedding @ voice.speaker_embedding / np.linalg.norm(voice.speaker_embedding))

    def _loaded(self) -> _Nets:
        if self._nets is None:
            self._nets = load_nets(self._checkpoint, self._device)
        return self._nets

    def _condition(self, samples: Samples, name: str, metadata: dict[str, str]) -> Voice:
        """Resamples with soxr for T3 (15 s, or 6) and the speaker encoder (all), with a windowed sinc for S3Gen (10 s).

        A recording of which both read all is tokenized once for both, since the tokenizer takes most of the time.
        """
        nets = self._loaded()
        t3_tokens = self._checkpoint.spec.conditioning.t3_prompt_tokens
        t3_samples_16k = t3_tokens * tokenizer.RATE_HZ // SPEECH_TOKENS_PER_S
        all_16k = resample(samples, SAMPLE_RATE_HZ, tokenizer.RATE_HZ)
        prompt = samples[:_S3GEN_SAMPLES]
        prompt_16k = resample_windowed_sinc(prompt, SAMPLE_RATE_HZ, tokenizer.RATE_HZ)
        speech_tokens, mel = nets.tokenizer.encode(prompt_16k), prompt_mel(prompt)
        # the last, partly filled token covers fewer than two mel frames: tokens and mel end at the last whole one
        # (upstream keeps an odd mel frame, which takes 20 ms from the start of all speech with that voice)
        tokens = speech_tokens[: len(mel) // MEL_FRAMES_PER_TOKEN]
        shared = len(samples) <= min(_S3GEN_SAMPLES, t3_tokens * SAMPLES_PER_TOKEN)
        return Voice(
            name=name,
            speaker_embedding=nets.speaker.embed(all_16k),
            t3_prompt_tokens=speech_tokens if shared else nets.tokenizer.encode(all_16k[:t3_samples_16k], t3_tokens),
            s3gen_prompt_tokens=tokens,
            s3gen_prompt_mel=mel[: MEL_FRAMES_PER_TOKEN * len(tokens)].copy(),
            x_vector=nets.xvector.embed(prompt_16k),
            metadata=metadata,
        )

    def _metadata(self, reference: Reference) -> dict[str, str]:
        """Describes the recording and the model: speech tokens are valid for the weights that made them only."""
        described = {
            "duration_s": f"{reference.recorded_s:.3f}",
            "loudness_lufs": f"{reference.loudness_lufs:.1f}",
            "source": reference.source,
            MODEL: self._checkpoint.voice_model,
            "mynah_version": VERSION,
        }
        return reference.report.in_metadata(described)


def load_nets(checkpoint: Checkpoint, device: torch.device) -> _Nets:
    """Load the three nets. Raises CheckpointError as `load_tensors`."""
    spec = checkpoint.spec
    with torch.device("meta"):
        nets = _Nets(speaker.SpeakerEncoder(spec), tokenizer.SpeechTokenizer(spec), xvector.XVectorEncoder(spec))
    _fill(nets.speaker, load_tensors(checkpoint.voice_encoder_path, speaker.expected_tensors(spec)), device)
    for net, part in ((nets.tokenizer, tokenizer), (nets.xvector, xvector)):
        tensors = load_tensors(checkpoint.s3gen_path, part.expected_tensors(spec), prefix=part.PREFIX)
        _fill(net, tensors, device)
    if device.type == "cpu":
        # halves the time for its small images; torch's annotations lack the argument
        nets.xvector.head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if packing_available():
            pack(nets.tokenizer)  # its matrix products take two thirds of a build
    return nets


def _fill(net: nn.Module, tensors: dict[str, torch.Tensor], device: torch.device) -> None:
    """Assign the tensors to the net. On a CPU they remain views of the memory-mapped file."""
    net.load_state_dict(tensors, assign=True)
    net.to(device).eval().requires_grad_(False)
