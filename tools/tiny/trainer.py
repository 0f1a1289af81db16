"""What every training loop does: a learning rate over steps, checkpoints that survive a stop, a log line now and then.

Knows torch and files; what is learned is a function that returns losses.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

_WARM_UP_STEPS = 200
_SAVE_EVERY_S = 90.0
_SAMPLE_EVERY_S = 600.0
_LOG_EVERY_S = 30.0
_CLIP = 1.0  # of the gradient's norm

Losses = dict[str, Tensor]  # the first is minimised
Optimisers = Callable[[Any, float], torch.optim.Optimizer]
Sampler = Callable[[int], None]  # writes something to look at or hear, given the step


def halved() -> torch.autocast:
    """Products in bfloat16 where the device multiplies those faster; everything else stays as it is."""
    device = torch.get_default_device().type
    return torch.autocast(device if device in ("cpu", "cuda") else "cpu", torch.bfloat16)


def tensor(array: npt.NDArray[Any]) -> Tensor:
    """`array` where training runs; torch puts what it makes itself there."""
    return torch.from_numpy(array).to(torch.get_default_device())


class Trainer:
    """A cosine from `peak` to a twentieth of it over `steps`; resumes from `path` where that exists.

    optimiser: makes one for the net and the peak; a group's `share` times the rate is its own. Adam if none is given.
    """

    def __init__(
        self, path: Path, net: nn.Module, *, steps: int, peak: float, optimiser: Optimisers | None = None
    ) -> None:
        self.path, self.net, self.steps, self._peak = path, net, steps, peak
        self.step = 0
        self._optimiser = (optimiser or _adam)(net, peak)
        if path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)
            net.load_state_dict(state["net"])
            self._optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]

    def run(self, losses: Callable[[int], Losses], sample: Sampler | None = None) -> None:
        """Train to the last step, or save and leave when the process is asked to end.

        `losses` is given the step's number, from which it seeds its batch. `sample` is called every ten minutes and at
        the end, when the latest weights lie in the file.
        """
        stopping: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
        progress = _Progress(self.path.stem)
        saved_s = sampled_s = time.monotonic()
        while self.step < self.steps and not stopping:
            values = losses(self.step)
            self._optimise(next(iter(values.values())))
            self.step += 1
            progress.add(self.step, values)
            if time.monotonic() - saved_s > _SAVE_EVERY_S:
                self.save()
                saved_s = time.monotonic()
                if sample and saved_s - sampled_s > _SAMPLE_EVERY_S:
                    sample(self.step)
                    sampled_s = saved_s
        progress.tell(self.step)
        self.save()
        signal.signal(signal.SIGTERM, before)
        if stopping:
            raise SystemExit(f"asked to end, saved step {self.step}")
        if sample:
            sample(self.step)

    def _optimise(self, loss: Tensor) -> None:
        warm = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        cosine = 0.5 + 0.5 * math.cos(math.pi * self.step / self.steps)
        for group in self._optimiser.param_groups:
            group["lr"] = group.get("share", 1.0) * self._peak * warm * (0.05 + 0.95 * cosine)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), _CLIP)
        if torch.isfinite(norm):
            self._optimiser.step()

    def save(self) -> None:
        partial = self.path.with_suffix(".partial")
        state = {"net": self.net.state_dict(), "optimiser": self._optimiser.state_dict(), "step": self.step}
        torch.save(state, partial)
        partial.replace(self.path)


def _adam(net: nn.Module, peak: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=peak, betas=(0.9, 0.98))


class _Progress:
    """Mean losses and seconds a step, told every half minute."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start()

    def _start(self) -> None:
        self._since_s, self._count = time.monotonic(), 0
        self._values: dict[str, list[float]] = {}

    def add(self, step: int, values: Losses) -> None:
        self._count += 1
        for name, value in values.items():
            self._values.setdefault(name, []).append(float(value.detach()))
        if time.monotonic() - self._since_s > _LOG_EVERY_S:
            self.tell(step)

    def tell(self, step: int) -> None:
        if self._count:
            shown = " ".join(f"{name} {sum(told) / len(told):.4f}" for name, told in self._values.items())
            step_s = (time.monotonic() - self._since_s) / self._count
            stamp = time.strftime("%H:%M:%S")
            print(f"{stamp} {self._name} {step} {shown} ({step_s:.3f} s/step)", flush=True)
        self._start()
