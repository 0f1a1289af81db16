"""Helpers of the tests of standard's and Multilingual's T3: a tiny net, and requests with guidance."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from engines.checkpoints.checkpoint import Checkpoint
from engines.model_spec import STANDARD_TINY, STOP_SPEECH_TOKEN
from engines.t3.backend import T3Request
from engines.t3.family import LLAMA
from engines.t3.llama.net import LlamaNet
from engines.t3.random_weights import random_tensors
from engines.voice import Voice
from tests.engines.t3.setting import CPU, voice


@cache
def _folder() -> TemporaryDirectory[str]:
    """Weights that never stop by themselves."""
    folder = TemporaryDirectory()
    tensors = dict(random_tensors(STANDARD_TINY, seed=0))
    tensors["speech_head.weight"][STOP_SPEECH_TOKEN] *= -1
    save_file(tensors, Path(folder.name) / STANDARD_TINY.t3_file)
    return folder


def checkpoint() -> Checkpoint:
    return Checkpoint(Path(_folder().name), STANDARD_TINY, random_weights=True)


@cache
def net() -> LlamaNet:
    return LlamaNet.load(checkpoint().t3_path, STANDARD_TINY, CPU)


def request(seed: int = 0, *, text: int = 20, of: Voice | None = None, **sampling: Any) -> T3Request:
    """A request with `text` random tokens; `seed` decides text and draws, and the voice unless `of` is one."""
    ids = np.random.default_rng(seed).integers(1, STANDARD_TINY.t3.text_vocab, text)
    settings = replace(LLAMA.sampling, seed=seed, **{"max_speech_tokens": 40, **sampling})
    return T3Request(tuple(ids.tolist()), of or voice(seed, 150), settings)
