"""Training goes on where it stopped, as if it had not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tools.tiny.trainer import Losses, Trainer

_STEPS = 10


class _Stopped(Exception):
    pass


class _Sum:
    """A net that learns to add up three numbers; stops after a save at `stop_at`."""

    def __init__(self, path: Path, stop_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.net = nn.Linear(3, 1)
        self.trainer = Trainer(path, self.net, steps=_STEPS, peak=1e-2)
        self._stop_at = stop_at

    def run(self) -> torch.Tensor:
        self.trainer.run(self._losses)
        return self.net.weight.detach()

    def _losses(self, step: int) -> Losses:
        if step == self._stop_at:
            self.trainer.save()
            raise _Stopped
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        return {"loss": (self.net(x) - x.sum(1, keepdim=True)).square().mean()}


def test_a_stop_changes_nothing(tmp_path: Path) -> None:
    before = _Sum(tmp_path / "never.pt").net.weight.detach().clone()
    through = _Sum(tmp_path / "through.pt").run()
    assert (through - 1).abs().sum() < (before - 1).abs().sum()
    with pytest.raises(_Stopped):
        _Sum(tmp_path / "stopped.pt", stop_at=4).run()
    again = _Sum(tmp_path / "stopped.pt")
    assert again.trainer.step == 4
    assert torch.equal(again.run(), through)
