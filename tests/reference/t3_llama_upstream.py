"""Upstream's Llama T3 with the weights of a real safetensors file, and its `inference` with draws of a test's own."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from engines.config import Sampling
from engines.model_spec import ModelSpec
from engines.t3.backend import T3Request
from engines.t3.sampler import uniform
from engines.voice import Voice
from tests.reference import upstream

START_TEXT, STOP_TEXT = 255, 0


def load(spec: ModelSpec, path: Path) -> upstream.T3:
    """As upstream's `from_local`, but without first making random weights."""
    model = upstream.t3(spec)
    model.load_state_dict(load_file(path), strict=True)
    return model


def conditioning(voice: Voice, exaggeration: float) -> upstream.T3Cond:
    return upstream.T3Cond(
        speaker_emb=torch.tensor(voice.speaker_embedding)[None],
        cond_prompt_speech_tokens=torch.tensor(voice.t3_prompt_tokens)[None],
        emotion_adv=exaggeration * torch.ones(1, 1, 1),
    )


def text_rows(text_tokens: Sequence[int]) -> torch.Tensor:
    """(2, n): as `generate` gives the text to `inference`."""
    return torch.tensor([[START_TEXT, *text_tokens, STOP_TEXT]] * 2)


def tokens(model: upstream.T3, request: T3Request) -> tuple[list[int], list[torch.Tensor]]:
    """What `inference` makes, and the probabilities of each draw, (8194,), which is ours."""
    sampling, seen = request.sampling, []
    with drawing(lambda probs: seen.append(probs) or draw(probs, sampling, len(seen) - 1)):
        made = model.inference(
            t3_cond=conditioning(request.voice, sampling.exaggeration),
            text_tokens=text_rows(request.text_tokens),
            max_new_tokens=sampling.max_speech_tokens,
            temperature=sampling.temperature or 1.0,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            cfg_weight=sampling.cfg_weight,
        )
    return made[0].tolist(), seen


def draw(probabilities: torch.Tensor, sampling: Sampling, step: int) -> int:
    """The likeliest token at temperature 0, else that of the seed's number for this step."""
    if sampling.temperature == 0:
        return int(probabilities.argmax())
    cumulated = probabilities.double().cumsum(-1)
    return int(torch.searchsorted(cumulated, uniform(sampling.seed, step) * cumulated[-1:], right=True))


@contextlib.contextmanager
def drawing(draw_from: Callable[[torch.Tensor], int]) -> Iterator[None]:
    """Upstream takes its tokens from `draw_from`, which gets the probabilities (8194,)."""
    multinomial = torch.multinomial
    torch.multinomial = lambda probs, num_samples: torch.tensor([[draw_from(probs[0])]])
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        torch.multinomial = multinomial
