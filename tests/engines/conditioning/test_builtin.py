"""Tests of the built-in voice's file: it is compatible with upstream's, and its code is never run."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.conditioning.builtin import load_builtin, save_builtin
from engines.conditioning.random_weights import random_voice
from engines.errors import CheckpointError


def upstream_layout(tokens: int, frames: int) -> dict[str, Any]:
    """What upstream's Conditionals.save writes, for a reference of an awkward length."""
    generator = torch.Generator().manual_seed(0)
    return {
        "t3": {
            "speaker_emb": torch.randn(1, 256, generator=generator),
            "clap_emb": None,
            "cond_prompt_speech_tokens": torch.randint(0, 6561, (1, 375), generator=generator),
            "cond_prompt_speech_emb": None,
            "emotion_adv": torch.full((1, 1, 1), 0.5),
        },
        "gen": {
            "prompt_token": torch.randint(0, 6561, (1, tokens), generator=generator),
            "prompt_token_len": torch.tensor([tokens]),
            "prompt_feat": torch.randn(1, frames, 80, generator=generator),
            "prompt_feat_len": None,
            "embedding": torch.randn(1, 192, generator=generator),
        },
    }


def test_a_saved_voice_loads_as_it_was(tmp_path: Path) -> None:
    voice = random_voice(7)
    save_builtin(voice, tmp_path / "conds.pt")
    loaded = load_builtin(tmp_path / "conds.pt", name="house")
    assert loaded.key == voice.key
    assert loaded.name == "house"
    assert [path.name for path in tmp_path.iterdir()] == ["conds.pt"]


@pytest.mark.parametrize(("tokens", "frames", "kept"), [(250, 500, 250), (137, 275, 137), (138, 275, 137), (3, 500, 3)])
def test_mel_and_tokens_are_cut_to_their_common_length(tmp_path: Path, tokens: int, frames: int, kept: int) -> None:
    layout = upstream_layout(tokens, frames)
    torch.save(layout, tmp_path / "conds.pt")
    voice = load_builtin(tmp_path / "conds.pt")
    np.testing.assert_array_equal(voice.s3gen_prompt_tokens, layout["gen"]["prompt_token"][0, :kept].numpy())
    np.testing.assert_array_equal(voice.s3gen_prompt_mel, layout["gen"]["prompt_feat"][0, : 2 * kept].numpy())


def test_narrow_types_are_widened(tmp_path: Path) -> None:
    layout = upstream_layout(10, 20)
    layout["gen"]["prompt_feat"] = layout["gen"]["prompt_feat"].half()
    layout["t3"]["speaker_emb"] = layout["t3"]["speaker_emb"].bfloat16()
    layout["t3"]["cond_prompt_speech_tokens"] = layout["t3"]["cond_prompt_speech_tokens"].int()
    torch.save(layout, tmp_path / "conds.pt")
    assert load_builtin(tmp_path / "conds.pt").t3_prompt_tokens.dtype == np.int64


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("gen", "embedding", None, "embedding"),
        ("t3", "speaker_emb", torch.zeros(1, 255), "speaker_embedding"),
        ("t3", "cond_prompt_speech_tokens", torch.full((1, 9), 6561), "t3_prompt_tokens"),
        ("gen", "prompt_feat", torch.zeros(2, 500, 80), "batch of 2"),
        ("gen", "prompt_feat", torch.zeros(1, 500, 40), "s3gen_prompt_mel"),
    ],
)
def test_missing_and_malformed_entries_are_named(tmp_path: Path, part: str, key: str, value: Any, message: str) -> None:
    layout = upstream_layout(250, 500)
    if value is None:
        del layout[part][key]
    else:
        layout[part][key] = value
    torch.save(layout, tmp_path / "conds.pt")
    with pytest.raises(CheckpointError, match=message):
        load_builtin(tmp_path / "conds.pt")


class _Bomb:
    """Unpickling this would create the marker file."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (_explode, (str(self._marker),))


def _explode(marker: str) -> None:
    Path(marker).touch()


def _modern(bomb: _Bomb) -> bytes:
    layout = upstream_layout(10, 20)
    layout["gen"]["extra"] = bomb
    target = io.BytesIO()
    torch.save(layout, target)
    return target.getvalue()


def _legacy(bomb: _Bomb) -> bytes:
    target = io.BytesIO()
    torch.save({"t3": bomb}, target, _use_new_zipfile_serialization=False)
    return target.getvalue()


def _bare(bomb: _Bomb) -> bytes:
    return pickle.dumps(bomb, protocol=2)


def _zipped(bomb: _Bomb) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(bomb, protocol=2))
        archive.writestr("archive/version", "3")
    return target.getvalue()


@pytest.mark.parametrize("wrap", [_modern, _legacy, _bare, _zipped])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, wrap: Any) -> None:
    marker, path = tmp_path / "executed", tmp_path / "conds.pt"
    path.write_bytes(wrap(_Bomb(marker)))
    pickle_runs = tmp_path / "sanity"
    pickle.loads(pickle.dumps(_Bomb(pickle_runs)))
    assert pickle_runs.exists(), "the bomb itself works"
    with pytest.raises(CheckpointError, match="not a file of voice conditionals"):
        load_builtin(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"garbage" * 100])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "conds.pt").write_bytes(content)
    with pytest.raises(CheckpointError):
        load_builtin(tmp_path / "conds.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pt"):
        load_builtin(tmp_path / "nowhere.pt")
