"""Where weights come from: hub id | local folder | random weights -> a Checkpoint, a folder of upstream's layout.

Knows file names and tensor headers; builds no net and imports no model library.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engines.config import ModelSpec


@dataclass(frozen=True)
class Checkpoint:
    """A folder of upstream's layout. `notice` is a sentence for people when this is not the real thing."""

    folder: Path
    spec: ModelSpec
    random_weights: bool = False
    notice: str = ""

    @property
    def t3_path(self) -> Path:
        return self.folder / self.spec.t3_file

    @property
    def s3gen_path(self) -> Path:
        """flow., mel2wav. (vocoder), tokenizer. (S3 tokenizer) and speaker_encoder. (CAMPPlus) in one file."""
        return self.folder / "s3gen_meanflow.safetensors"

    @property
    def voice_encoder_path(self) -> Path:
        return self.folder / "ve.safetensors"

    @property
    def conds_path(self) -> Path | None:
        """The built-in voice, if the checkpoint has one."""
        path = self.folder / "conds.pt"
        return path if path.exists() else None
