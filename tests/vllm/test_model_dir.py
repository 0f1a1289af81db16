"""The model directory that vLLM loads, and the plugin's entry point."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from engines.checkpoints.checkpoint import Checkpoint
from engines.model_spec import SPEECH_VOCAB, TINY
from engines.t3.vllm.family import vllm_family
from engines.t3.vllm.model_dir import prepare_model_dir
from engines.t3.vllm.vocab import IdSpace

FAMILY = vllm_family(TINY.t3, 4)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / TINY.t3_file).write_bytes(b"weights")
    return Checkpoint(folder, TINY)


def test_the_folder_holds_upstreams_file_and_our_dimensions(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = prepare_model_dir(checkpoint, FAMILY, tmp_path / "work")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").resolve() == checkpoint.t3_path
    config = json.loads((folder / "config.json").read_text())
    assert (config["n_layer"], config["n_embd"], config["n_head"]) == (TINY.t3.layers, TINY.t3.width, TINY.t3.heads)
    assert config["n_positions"] == TINY.t3.positions
    assert config["vocab_size"] == SPEECH_VOCAB
    assert IdSpace(config["mynah_text_vocab"], config["mynah_voice_slots"]) == FAMILY.ids


def test_the_same_checkpoint_gets_the_same_folder_and_another_its_own(checkpoint: Checkpoint, tmp_path: Path) -> None:
    first = prepare_model_dir(checkpoint, FAMILY, tmp_path / "work")
    assert prepare_model_dir(checkpoint, FAMILY, tmp_path / "work") == first
    assert prepare_model_dir(checkpoint, vllm_family(TINY.t3, 5), tmp_path / "work") != first


def test_vllm_finds_the_plugin_by_its_entry_point() -> None:
    (entry,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="mynah_t3")
    assert entry.value == "engines.t3.vllm.plugin:register"
    assert callable(entry.load())
