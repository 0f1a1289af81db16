"""A Voice: the immutable conditioning made from reference audio, and its file format."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from engines.errors import InvalidInput
from engines.model_spec import (
    MAX_S3GEN_PROMPT_TOKENS,
    MAX_T3_PROMPT_TOKENS,
    MEL_BANDS,
    MEL_FRAMES_PER_TOKEN,
    SPEAKER_EMBEDDING_DIM,
    SPEECH_CODES,
    X_VECTOR_DIM,
)

_FORMAT = "mynah-voice-1"
MODEL = "model"  # metadata key: the model that the voice was made with; voices of other makers lack it
HEADER_BYTES = 64 * 1024  # the start of a voice's file that is sure to hold its header


@dataclass(frozen=True)
class VoiceHeader:
    """The header of a voice's file."""

    name: str
    t3_prompt_tokens: int
    metadata: dict[str, str]


@dataclass(frozen=True, eq=False)
class Voice:
    """The conditioning of T3 and S3Gen on a speaker.

    speaker_embedding     (256,) float32, voice encoder, for T3
    t3_prompt_tokens      (<=375,) int64 speech tokens of the reference audio, for T3
    s3gen_prompt_tokens   (<=250,) int64 speech tokens of the reference audio, for S3Gen
    s3gen_prompt_mel      (2 x s3gen_prompt_tokens, 80) float32 log-mel, 50 frames/s
    x_vector              (192,) float32, CAMPPlus
    t3_prefix             (<=376, width) float32: T3's embedded prompt, of voices made with the published ONNX graphs.
                          Only these graphs can speak such a voice. None otherwise

    Raises InvalidInput if an array has another shape, a token is out of range or a number is not finite.
    """

    name: str
    speaker_embedding: npt.NDArray[np.float32]
    t3_prompt_tokens: npt.NDArray[np.int64]
    s3gen_prompt_tokens: npt.NDArray[np.int64]
    s3gen_prompt_mel: npt.NDArray[np.float32]
    x_vector: npt.NDArray[np.float32]
    metadata: dict[str, str] = field(default_factory=dict)
    t3_prefix: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        _shape("speaker_embedding", self.speaker_embedding, (SPEAKER_EMBEDDING_DIM,))
        _shape("x_vector", self.x_vector, (X_VECTOR_DIM,))
        _speech_tokens("t3_prompt_tokens", self.t3_prompt_tokens, MAX_T3_PROMPT_TOKENS)
        _speech_tokens("s3gen_prompt_tokens", self.s3gen_prompt_tokens, MAX_S3GEN_PROMPT_TOKENS)
        frames = MEL_FRAMES_PER_TOKEN * len(self.s3gen_prompt_tokens)
        _shape("s3gen_prompt_mel", self.s3gen_prompt_mel, (frames, MEL_BANDS))
        if self.t3_prefix is not None:
            rows = min(len(self.t3_prefix), 1 + MAX_T3_PROMPT_TOKENS) if self.t3_prefix.ndim == 2 else 1
            _shape("t3_prefix", self.t3_prefix, (max(1, rows), self.t3_prefix.shape[-1]))
        for array in self._arrays().values():
            array.setflags(write=False)

    def _arrays(self) -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]:
        arrays: dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]] = {
            "speaker_embedding": self.speaker_embedding,
            "t3_prompt_tokens": self.t3_prompt_tokens,
            "s3gen_prompt_tokens": self.s3gen_prompt_tokens,
            "s3gen_prompt_mel": self.s3gen_prompt_mel,
            "x_vector": self.x_vector,
        }
        if self.t3_prefix is not None:
            arrays["t3_prefix"] = self.t3_prefix
        return arrays

    @cached_property
    def key(self) -> str:
        """A hash of the conditioning. Two voices with the same key sound the same and share caches."""
        digest = hashlib.sha256()
        for name, array in self._arrays().items():
            digest.update(f"{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]

    def to_bytes(self) -> bytes:
        """Returns a safetensors file with name and metadata in its header."""
        header = {"format": _FORMAT, "name": self.name, "metadata": json.dumps(self.metadata, sort_keys=True)}
        return save({k: np.ascontiguousarray(v) for k, v in self._arrays().items()}, metadata=header)

    @classmethod
    def from_bytes(cls, data: bytes) -> Voice:
        """The inverse of `to_bytes`. Raises InvalidInput if the bytes are not a voice of this format."""
        try:
            header_len = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + header_len])["__metadata__"]
            _check_format(header)
            return cls(name=header["name"], metadata=_strings(json.loads(header["metadata"])), **load(data))
        except InvalidInput:
            raise
        except Exception as error:
            raise _not_a_voice(data, error) from error

    @staticmethod
    def header_of(data: bytes) -> VoiceHeader:
        """Read the header from a file's first bytes. Raises InvalidInput if they are not a voice of this format."""
        try:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            info = header["__metadata__"]
            _check_format(info)
            (tokens,) = header["t3_prompt_tokens"]["shape"]
            return VoiceHeader(str(info["name"]), int(tokens), _strings(json.loads(info["metadata"])))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _not_a_voice(data, error) from error

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        partial = path.with_suffix(path.suffix + ".partial")
        partial.write_bytes(self.to_bytes())
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Voice:
        """Read a file. Raises InvalidInput if it is not a voice, OSError if it cannot be read."""
        return cls.from_bytes(path.read_bytes())


def _not_a_voice(data: bytes, error: Exception) -> InvalidInput:
    message = f"voice is not a {_FORMAT} file ({error}); make the voice again from its reference audio."
    value, allowed = f"{len(data)} bytes", f"a {_FORMAT} file"
    return InvalidInput("voice", message, "VOICE_FILE_INVALID", value=value, allowed=allowed)


def _check_format(header: dict[str, str]) -> None:
    if header["format"] != _FORMAT:
        raise _invalid("format", repr(header["format"]), _FORMAT)


def _strings(metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid("metadata", repr(metadata), "an object of strings")
    return metadata


def _shape(name: str, array: npt.NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise _invalid(name, f"{array.dtype}{array.shape}", f"float32{shape}")
    if not np.isfinite(array).all():
        raise _invalid(name, "an array with NaN or infinity", "finite")


def _speech_tokens(name: str, array: npt.NDArray[np.int64], max_tokens: int) -> None:
    ok = array.dtype == np.int64 and array.ndim == 1 and 1 <= len(array) <= max_tokens
    if not ok:
        raise _invalid(name, f"{array.dtype}{array.shape}", f"int64, 1 to {max_tokens} speech tokens")
    if array.min() < 0 or array.max() >= SPEECH_CODES:
        raise _invalid(name, f"{array.min()} to {array.max()}", f"in 0 to {SPEECH_CODES - 1}")


def _invalid(name: str, value: str, allowed: str) -> InvalidInput:
    field = f"voice.{name}"
    shown = value if len(value) <= 80 else value[:77] + "..."
    message = f"{field} is {shown}; it must be {allowed}."
    return InvalidInput(field, message, "VOICE_FILE_INVALID", value=value, allowed=allowed)
