"""The checkpoint's built-in voice: converts between upstream's `conds.pt` and Voice.

It is the only pickle that is opened, with `weights_only=True`: tensors and plain containers, never code.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.errors import CheckpointError, InvalidInput
from engines.model_spec import MEL_FRAMES_PER_TOKEN
from engines.voice import Voice

log = logging.getLogger("mynah.engines")


def load_builtin(path: Path, name: str = "default") -> Voice:
    """Load the voice from a file of upstream's layout {"t3": {...}, "gen": {...}}, saved on any device.

    Tokens and mel are cut to their common length. Raises CheckpointError if an entry is missing or malformed, or if
    the file holds objects other than tensors and plain values.
    """
    try:
        conditionals = torch.load(path, map_location="cpu", weights_only=True)
        return _voice(conditionals["t3"], conditionals["gen"], name)
    except KeyError as error:
        raise CheckpointError(f"{path}: {error} is missing") from error
    except InvalidInput as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # a broken zip or a refused pickle makes torch.load raise many types
        raise CheckpointError(f"{path}: not a file of voice conditionals ({error})") from error


def load_others(paths: Mapping[str, Path]) -> dict[str, Voice]:
    """Load further built-in voices, given by their ids; a file of something else is left out, with a warning."""
    voices = {}
    for voice_id, path in paths.items():
        try:
            voices[voice_id] = load_builtin(path, voice_id.replace("-", " ").replace("_", " ").title())
        except CheckpointError as error:
            log.warning("%s is left out of the built-in voices: %s", path.name, error)
    return voices


def _voice(t3: dict[str, Any], gen: dict[str, Any], name: str) -> Voice:
    tokens, mel = _row(gen["prompt_token"], torch.int64), _row(gen["prompt_feat"], torch.float32)
    tokens = tokens[: min(len(tokens), len(mel) // MEL_FRAMES_PER_TOKEN)]
    return Voice(
        name=name,
        speaker_embedding=_row(t3["speaker_emb"], torch.float32),
        t3_prompt_tokens=_row(t3["cond_prompt_speech_tokens"], torch.int64),
        s3gen_prompt_tokens=tokens,
        s3gen_prompt_mel=mel[: MEL_FRAMES_PER_TOKEN * len(tokens)],
        x_vector=_row(gen["embedding"], torch.float32),
        metadata={"source": "checkpoint"},
    )


def _row(tensor: torch.Tensor, dtype: torch.dtype) -> np.ndarray[Any, np.dtype[Any]]:
    """Returns a copy of the single row in `dtype`."""
    if tensor.shape[0] != 1:
        raise ValueError(f"a batch of {tensor.shape[0]} where one voice is expected")
    return tensor[0].detach().to(dtype, copy=True).numpy()


def save_builtin(voice: Voice, path: Path) -> None:
    """Write the voice atomically in upstream's layout, which its `Conditionals.load` reads."""
    t3 = {
        "speaker_emb": _batch(voice.speaker_embedding),
        "clap_emb": None,
        "cond_prompt_speech_tokens": _batch(voice.t3_prompt_tokens),
        "cond_prompt_speech_emb": None,
        "emotion_adv": torch.full((1, 1, 1), 0.5),  # upstream's default; neither Turbo nor Nano uses it
    }
    gen = {
        "prompt_token": _batch(voice.s3gen_prompt_tokens),
        "prompt_token_len": torch.tensor([len(voice.s3gen_prompt_tokens)]),
        "prompt_feat": _batch(voice.s3gen_prompt_mel),
        "prompt_feat_len": None,
        "embedding": _batch(voice.x_vector),
    }
    partial = path.with_suffix(path.suffix + ".partial")
    torch.save({"t3": t3, "gen": gen}, partial)
    partial.replace(path)


def _batch(array: np.ndarray[Any, np.dtype[Any]]) -> torch.Tensor:
    return torch.from_numpy(array.copy())[None]
