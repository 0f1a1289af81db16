"""Each net's losses can be computed wherever it trains: on the meta device, which refuses to meet another's tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tools.tiny.codes import SOUNDS
from tools.tiny.dataset import Stream
from tools.tiny.engine import MEL_BANDS, MEL_FRAMES_PER_TOKEN, SAMPLES_PER_TOKEN
from tools.tiny.nets import RECIPES, Run

_TOKENS = 700


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two voices of noise."""
    made, draw = Run(tmp_path), np.random.default_rng(0)
    frames = MEL_FRAMES_PER_TOKEN * _TOKENS
    sounds = draw.integers(SOUNDS, size=_TOKENS)
    made.__dict__["streams"] = [
        Stream(
            sounds,
            draw.integers(-9000, 9000, _TOKENS * SAMPLES_PER_TOKEN).astype(np.int16),
            draw.normal(-5, 1, (frames, MEL_BANDS)).astype(np.float16),
            draw.uniform(0, 200, frames).astype(np.float32),
        )
        for _ in range(2)
    ]
    return made


@pytest.mark.parametrize("name", ["encoder", "vocoder", "cfm"])
@pytest.mark.parametrize("step", [0, 1, 2])  # kinds of batches take turns
def test_losses_stay_on_the_device(run: Run, name: str, step: int) -> None:
    recipe = RECIPES[name]
    with torch.device("meta"):
        net = recipe.start(run).to("meta")
        loss = next(iter(recipe.task(net, run)(step).values()))
        loss.backward()  # type: ignore[no-untyped-call]
    assert loss.device.type == "meta"
    assert any(parameter.grad is not None for parameter in net.parameters())


def test_a_net_starts_the_same_on_every_device(run: Run) -> None:
    with torch.device("meta"):
        here = RECIPES["encoder"].start(run).state_dict()
    there = RECIPES["encoder"].start(run).state_dict()
    assert all(torch.equal(value, there[name]) for name, value in here.items())
