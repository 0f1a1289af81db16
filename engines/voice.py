"""A Voice: the immutable conditioning made once from reference audio. Pure numpy; loads no model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from engines.errors import InvalidInput, invalid_value
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


HEADER_BYTES = 64 * 1024  # of a voice's file; its header is far shorter


@dataclass(frozen=True)
class VoiceHeader:
    """What a file tells before its arrays."""

    name: str
    t3_prompt_tokens: int
    metadata: dict[str, str]


@dataclass(frozen=True, eq=False)
class Voice:
    """Everything the models need to know of a speaker.

    speaker_embedding     (256,) float32, voice encoder, for T3
    t3_prompt_tokens      (<=375,) int64 speech codes of the reference, for T3
    s3gen_prompt_tokens   (<=250,) int64 speech codes of the reference, for S3Gen
    s3gen_prompt_mel      (2 x s3gen_prompt_tokens, 80) float32 log-mel, 50 frames/s
    x_vector              (192,) float32, CAMPPlus
    t3_prefix             (<=376, width) float32: T3's prompt as embedded rows, of voices made by the published ONNX
                          graphs; they alone can speak such a voice. None otherwise

    Raises InvalidInput when an array has another shape, a code is out of range or a number is not finite.
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
        """Hash of the conditioning itself; two voices with the same key sound the same and share caches."""
        digest = hashlib.sha256()
        for name, array in self._arrays().items():
            digest.update(f"{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]

    def to_bytes(self) -> bytes:
        """One safetensors file with name and metadata in its header."""
        header = {"format": _FORMAT, "name": self.name, "metadata": json.dumps(self.metadata, sort_keys=True)}
        return save({k: np.ascontiguousarray(v) for k, v in self._arrays().items()}, metadata=header)

    @classmethod
    def from_bytes(cls, data: bytes) -> Voice:
        """Inverse of `to_bytes`. Raises InvalidInput when the bytes are not a voice of this format."""
        try:
            header_len = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + header_len])["__metadata__"]
            if header["format"] != _FORMAT:
                raise invalid_value("voice.format", header["format"], _FORMAT, "VOICE_FILE_INVALID")
            return cls(name=header["name"], metadata=_strings(json.loads(header["metadata"])), **load(data))
        except InvalidInput:
            raise
        except Exception as error:
            raise invalid_value(
                "voice", f"{len(data)} bytes", f"a {_FORMAT} file ({error})", "VOICE_FILE_INVALID"
            ) from error

    @staticmethod
    def header_of(data: bytes) -> VoiceHeader:
        """What the first bytes of a file say of the voice. Raises InvalidInput as `from_bytes`."""
        try:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            about = header["__metadata__"]
            if about["format"] != _FORMAT:
                raise invalid_value("voice.format", about["format"], _FORMAT, "VOICE_FILE_INVALID")
            (tokens,) = header["t3_prompt_tokens"]["shape"]
            return VoiceHeader(str(about["name"]), int(tokens), _strings(json.loads(about["metadata"])))
        except (ValueError, KeyError, TypeError) as error:
            allowed = f"a {_FORMAT} file ({error})"
            raise invalid_value("voice", f"{len(data)} bytes", allowed, "VOICE_FILE_INVALID") from error

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        partial = path.with_suffix(path.suffix + ".partial")
        partial.write_bytes(self.to_bytes())
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Voice:
        """Read a file written by `save`. Raises InvalidInput as `from_bytes`, OSError when it is not there."""
        return cls.from_bytes(path.read_bytes())


def _strings(metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise invalid_value("voice.metadata", metadata, "an object of strings", "VOICE_FILE_INVALID")
    return metadata


def _shape(field_name: str, array: npt.NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise invalid_value(
            f"voice.{field_name}", f"{array.dtype}{array.shape}", f"float32{shape}", "VOICE_FILE_INVALID"
        )
    if not np.isfinite(array).all():
        raise invalid_value(f"voice.{field_name}", "non-finite values", "finite numbers", "VOICE_FILE_INVALID")


def _speech_tokens(field_name: str, array: npt.NDArray[np.int64], most: int) -> None:
    ok = array.dtype == np.int64 and array.ndim == 1 and 1 <= len(array) <= most
    if not ok or array.min() < 0 or array.max() >= SPEECH_CODES:
        allowed = f"int64, 1 to {most} codes in [0, {SPEECH_CODES})"
        raise invalid_value(f"voice.{field_name}", f"{array.dtype}{array.shape}", allowed, "VOICE_FILE_INVALID")
