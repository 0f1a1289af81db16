"""The folder that vLLM loads from, the plugin's entry point and the variable of another port."""

from __future__ import annotations

import importlib.metadata
import json
import logging
from pathlib import Path

import pytest

from engines.checkpoints.checkpoint import Checkpoint
from engines.errors import InvalidInput
from engines.model_spec import SPEECH_VOCAB, TINY
from engines.t3.guidance import VARIABLE, check_guidance
from engines.t3.vllm.model_dir import prepare_model_dir
from engines.t3.vllm.vocab import IdSpace

SPACE = IdSpace(TINY.t3.text_vocab, 4)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / TINY.t3_file).write_bytes(b"weights")
    return Checkpoint(folder, TINY)


def test_the_folder_holds_upstreams_file_and_our_dimensions(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = prepare_model_dir(checkpoint, SPACE, tmp_path / "work")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").resolve() == checkpoint.t3_path
    config = json.loads((folder / "config.json").read_text())
    assert (config["n_layer"], config["n_embd"], config["n_head"]) == (TINY.t3.layers, TINY.t3.width, TINY.t3.heads)
    assert config["n_positions"] == TINY.t3.positions
    assert config["vocab_size"] == SPEECH_VOCAB
    assert IdSpace(config["mynah_text_vocab"], config["mynah_voice_slots"]) == SPACE


def test_the_same_checkpoint_gets_the_same_folder_and_another_its_own(checkpoint: Checkpoint, tmp_path: Path) -> None:
    first = prepare_model_dir(checkpoint, SPACE, tmp_path / "work")
    assert prepare_model_dir(checkpoint, SPACE, tmp_path / "work") == first
    assert prepare_model_dir(checkpoint, IdSpace(TINY.t3.text_vocab, 5), tmp_path / "work") != first


def test_vllm_finds_the_plugin_by_its_entry_point() -> None:
    (entry,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="mynah_t3")
    assert entry.value == "engines.t3.vllm.plugin:register"
    assert callable(entry.load())


@pytest.mark.parametrize("value", ["0.5", "1", "-1", "nan", "half"])
def test_guidance_is_refused_and_explained(value: str) -> None:
    with pytest.raises(InvalidInput, match="Turbo and Nano were distilled without") as refusal:
        check_guidance({VARIABLE: value})
    assert (refusal.value.field, refusal.value.reason) == (VARIABLE, "CFG_UNSUPPORTED")


@pytest.mark.parametrize("value", ["0", "0.0", " 0 "])
def test_no_guidance_is_what_happens_anyway_and_is_said(value: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_guidance({VARIABLE: value})
    assert "changes nothing" in caplog.text


@pytest.mark.parametrize("environment", [{}, {VARIABLE: ""}])
def test_without_the_variable_nothing_is_said(environment: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_guidance(environment)
    assert not caplog.text
