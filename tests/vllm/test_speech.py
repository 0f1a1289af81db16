"""Speech from T3 on the real engine is understood as well as speech from T3 on torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.checkpoints.checkpoint import EMBEDDED, open_folder
from engines.conditioning.builder import VoiceBuilder
from engines.s3gen.runtimes.torch import TorchRuntime
from tests.speech.model import Model
from tests.speech.texts import DECODED


def test_speech_on_vllm_is_understood_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYNAH_CACHE_DIR", str(tmp_path))
    checkpoint = open_folder(EMBEDDED)
    model = Model(checkpoint, TorchRuntime(checkpoint, device="cpu"), VoiceBuilder(checkpoint))
    on_torch = model.spoken("heart", DECODED)
    assert model.spoken("heart", DECODED, t3="vllm").word_error_rate <= on_torch.allowed
