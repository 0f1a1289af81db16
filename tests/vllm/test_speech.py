"""Speech from T3 on the real engine is understood as well as speech from T3 on torch."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engines.checkpoints.checkpoint import EMBEDDED, open_folder
from engines.s3gen.runtimes.torch import TorchRuntime
from tests.speech.conftest import ABOVE_TEACHER, speech_tokens_on, one_pass


def test_speech_on_vllm_is_understood_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYNAH_CACHE_DIR", str(tmp_path))
    runtime = TorchRuntime(open_folder(EMBEDDED), device="cpu")
    on_torch = one_pass(runtime, *asyncio.run(speech_tokens_on("torch")))
    on_vllm = one_pass(runtime, *asyncio.run(speech_tokens_on("vllm")))
    assert on_torch.word_error_rate <= ABOVE_TEACHER + 0.05
    assert on_vllm.word_error_rate <= on_torch.allowed
