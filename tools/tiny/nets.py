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

from engines.conditioning.speaker import SpeakerEncoder
from engines.conditioning.tokenizer import SpeechTokenizer
from engines.model_spec import SAMPLE_RATE_HZ, TINY
from engines.s3gen.nets.vocoder import Vocoder
from tools.tiny import dataset, train_flow, train_vocoder
from tools.tiny.corpus import fetch_wordnet
from tools.tiny.dataset import Clip, Stream
from tools.tiny.lexicon import Lexicon, make_lexicon
from tools.tiny.t3_net import T3Train
from tools.tiny.train_t3 import T3Task
from tools.tiny.train_voices import SpeakerTask, TokenizerTask
from tools.tiny.trainer import Losses, Trainer
from tools.tiny.voices import VOICES

_SAMPLE_TOKENS = 100
Losser = Callable[[int], Losses]


class Run:
    """A run folder. What it holds is read when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def clips(self) -> list[Clip]:
        return dataset.load(self.folder / "data", VOICES)

    @cached_property
    def streams(self) -> list[Stream]:
        return dataset.streams(self.clips, len(VOICES))

    @cached_property
    def lexicon(self) -> Lexicon:
        return make_lexicon(fetch_wordnet(self.folder / "data/wordnet"))

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def trained(self, name: str) -> Any:
        """The net with its latest weights, or as it starts where it has not been trained."""
        net = RECIPES[name].start(self)
        if self.path(name).exists():
            net.load_state_dict(torch.load(self.path(name), map_location="cpu", weights_only=True)["net"])
        return net.eval().to(torch.get_default_device())


@dataclass(frozen=True)
class Recipe:
    build: Callable[[Run], nn.Module]
    task: Callable[[Any, Run], Losser]
    steps: int
    peak: float
    audible: bool = False  # a sample of it can be heard
    on_gpu: bool = True  # False: it hears through the engine's own features, which are numpy

    def start(self, run: Run) -> nn.Module:
        """Untrained, the same on every device."""
        with torch.device("cpu"):
            torch.manual_seed(0)
            return self.build(run)


def _t3(run: Run) -> T3Train:
    return T3Train(TINY.t3, torch.from_numpy(run.lexicon.symbols), torch.from_numpy(run.lexicon.stressed))


RECIPES = {
    "encoder": Recipe(
        lambda run: train_flow.make_encoder(TINY.flow),
        lambda net, run: train_flow.EncoderTask(net, run.streams).losses,
        7000, 1.5e-3, audible=True,
    ),
    "vocoder": Recipe(
        lambda run: train_vocoder.init(Vocoder(TINY.vocoder)),
        lambda net, run: train_vocoder.VocoderTask(
            net, run.trained("encoder"), run.streams, batch=6, tokens=16
        ).losses,
        12_500, 1e-3, audible=True,
    ),
    "cfm": Recipe(
        lambda run: train_flow.make_cfm(TINY.flow),
        lambda net, run: train_flow.CfmTask(net, run.trained("encoder"), run.streams).losses,
        0, 5e-4,  # it starts as a jump to the encoder's mel, which is what ships: --steps to try for more
    ),
    "t3": Recipe(_t3, lambda net, run: T3Task(net, run.clips, run.lexicon).losses, 11_000, 1.5e-3),
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
        trainer = Trainer(run.path(name), net, steps=steps, peak=peak or recipe.peak)
        trainer.run(recipe.task(net, run), partial(_sample, run, name) if recipe.audible else None)


def _sample(run: Run, name: str, step: int) -> None:
    """A sentence in each voice, from the teacher's codes, as encoder and vocoder say it now."""
    encoder, vocoder = run.trained("encoder"), run.trained("vocoder")
    said = [train_vocoder.speak(encoder, vocoder, stream.sounds[:_SAMPLE_TOKENS]) for stream in run.streams]
    path = run.folder / "samples" / f"{name}-{step}.wav"
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((np.clip(np.concatenate(said), -1, 1) * 32767).astype("<i2").tobytes())
    print(f"sample: {path}", flush=True)
