"""Every net of the tiny model that is trained, with its task: what to build, for how many steps, from which data.

Knows the run folder's layout: data/, one NAME.pt per net, samples/.
"""

from __future__ import annotations

import wave
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tools.tiny import dataset, train_flow, train_vocoder
from tools.tiny.compose import Composer, usual_sounds
from tools.tiny.dataset import Sentence, Stream
from tools.tiny.engine import SAMPLE_RATE_HZ, TINY, SpeakerEncoder, SpeechTokenizer, Vocoder, vocoder_weights
from tools.tiny.muon import Muon
from tools.tiny.t3_net import T3Train
from tools.tiny.texts import fetch_wordnet
from tools.tiny.train_t3 import T3Task
from tools.tiny.train_voices import SpeakerTask, TokenizerTask
from tools.tiny.trainer import Losses, Optimisers, Trainer

_SAMPLE_TOKENS, _SAMPLE_PROMPT_TOKENS = 200, 75
Losser = Callable[[int], Losses]


class Run:
    """A run folder. What it holds is read when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def streams(self) -> list[Stream]:
        return dataset.streams(self.folder / "data")

    @cached_property
    def sentences(self) -> list[Sentence]:
        return dataset.sentences(self.folder / "data")

    @cached_property
    def wordnet(self) -> Path:
        return fetch_wordnet(self.folder / "wordnet")

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def trained(self, name: str) -> Any:
        """The net with its latest weights, or as it starts where it has not been trained."""
        net = RECIPES[name].start(self)
        if self.path(name).exists():
            net.load_state_dict(torch.load(self.path(name), map_location="cpu", weights_only=True)["net"])
        return net.eval().requires_grad_(False).to(torch.get_default_device())

    @property
    def start(self) -> Path:
        """S3Gen's file of a tiny model that was made before, if any: its vocoder learns further, and its flow speaks
        where none has been trained here."""
        return self.folder / "start.safetensors"

    def flow(self) -> train_flow.Flow | None:
        """Encoder and CFM as they are; None where there are none."""
        if not self.path("cfm").exists():
            return train_flow.load(self.start) if self.start.exists() else None
        return train_flow.Flow(self.trained("encoder"), self.trained("cfm"))


@dataclass(frozen=True)
class Recipe:
    build: Callable[[Run], nn.Module]
    task: Callable[[Any, Run], Losser]
    steps: int
    peak: float
    audible: bool = False  # a sample of it can be heard
    optimiser: Optimisers | None = None
    on_gpu: bool = True  # False: it hears through the engine's own features, which are numpy

    def start(self, run: Run) -> nn.Module:
        """Untrained, the same on every device."""
        with torch.device("cpu"):
            torch.manual_seed(0)
            return self.build(run)


def _vocoder(run: Run) -> Vocoder:
    """What ships already, where there is a start: it learns other voices in a fraction of the steps. Else a new one."""
    if run.start.exists():
        return vocoder_weights.load_vocoder(run.start, TINY).requires_grad_(True)
    return train_vocoder.init(Vocoder(TINY.vocoder))


RECIPES = {
    "t3": Recipe(
        lambda run: T3Train(TINY.t3),
        lambda net, run: T3Task(net, Composer(run.sentences, usual_sounds(run.sentences))).losses,
        15_000, 1.5e-3, optimiser=lambda net, peak: Muon(net.matrices(), net.others(), peak),
    ),
    "encoder": Recipe(
        lambda run: train_flow.make_encoder(TINY.flow),
        lambda net, run: train_flow.EncoderTask(net, run.streams, voice=0).losses,
        8000, 1.5e-3,
    ),
    "second_encoder": Recipe(  # not exported: the CFM learns from its means
        lambda run: run.trained("encoder").train().requires_grad_(True),
        lambda net, run: train_flow.EncoderTask(net, run.streams, voice=1).losses,
        2000, 1e-3,
    ),
    "cfm": Recipe(
        lambda run: train_flow.make_cfm(TINY.flow),
        lambda net, run: train_flow.CfmTask(
            net, run.trained("encoder"), run.trained("second_encoder"), run.streams
        ).losses,
        6000, 1.5e-4, optimiser=train_flow.cfm_optimiser,
    ),
    "vocoder": Recipe(
        _vocoder,
        lambda net, run: train_vocoder.VocoderTask(net, run.flow(), run.streams, batch=6, tokens=16).losses,
        12_500, 7e-4, audible=True,
    ),
    "hearing": Recipe(
        lambda run: SpeechTokenizer(TINY), lambda net, run: TokenizerTask(net, run.streams).losses, 3500, 1e-3,
        on_gpu=False,
    ),
    "speaker": Recipe(
        lambda run: SpeakerEncoder(TINY), lambda net, run: SpeakerTask(net, run.streams).losses, 200, 2e-3,
        on_gpu=False,
    ),
}  # fmt: skip


def train(run: Run, name: str, device: str, steps: int | None, peak: float | None) -> None:
    """Train one net to its last step, from where the run folder has it."""
    recipe = RECIPES[name]
    with torch.device(device if recipe.on_gpu else "cpu"):
        net = recipe.start(run).to(torch.get_default_device())
        steps = recipe.steps if steps is None else steps
        trainer = Trainer(run.path(name), net, steps=steps, peak=peak or recipe.peak, optimiser=recipe.optimiser)
        trainer.run(recipe.task(net, run), partial(_sample, run, name) if recipe.audible else None)


def _sample(run: Run, name: str, step: int) -> None:
    """The same words in each voice, from the teacher's codes, as flow and vocoder say them now."""
    vocoder, flow = run.trained("vocoder"), run.flow()
    if flow is None:
        return
    draw = np.random.default_rng(0)
    made = train_flow.windows(run.streams, draw, 4, _SAMPLE_TOKENS, _SAMPLE_PROMPT_TOKENS)
    said = [train_vocoder.speak(vocoder, mel) for mel in flow.mel(made)[:, made.prompt_frames :]]
    write_wave(run.folder / "samples" / f"{name}-{step}.wav", np.concatenate(said))


def write_wave(path: Path, samples: train_vocoder.F32) -> None:
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    print(f"sample: {path}", flush=True)
