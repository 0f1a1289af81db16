"""Fixtures of the speech gate: the embedded model, its voices, and its speech for the texts of every set."""

from __future__ import annotations

import pytest

from engines.checkpoints.checkpoint import EMBEDDED, Checkpoint, open_folder
from engines.conditioning.builder import VoiceBuilder
from engines.s3gen.runtimes.torch import TorchRuntime
from tests.speech.model import Model, Spoken
from tests.speech.texts import DECODED


@pytest.fixture(scope="package")
def checkpoint() -> Checkpoint:
    return open_folder(EMBEDDED)


@pytest.fixture(scope="package")
def torch_runtime(checkpoint: Checkpoint) -> TorchRuntime:
    return TorchRuntime(checkpoint, device="cpu")


@pytest.fixture(scope="package")
def builder(checkpoint: Checkpoint) -> VoiceBuilder:
    return VoiceBuilder(checkpoint)


@pytest.fixture(scope="package")
def model(checkpoint: Checkpoint, torch_runtime: TorchRuntime, builder: VoiceBuilder) -> Model:
    model = Model(checkpoint, torch_runtime, builder)
    for name in tuple(model.voices):
        model.add_clone(name)
    return model


@pytest.fixture(scope="package")
def offline(model: Model) -> Spoken:
    """The texts that are decoded in other ways, in the built-in voice."""
    return model.spoken("heart", DECODED)
