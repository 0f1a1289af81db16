"""Upstream's T3 with the weights of a real safetensors file, and the pieces of it that parity is measured on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engines.model_spec import ModelSpec
from engines.t3.backend import T3Request
from engines.voice import Voice
from tests.reference import upstream


def load(spec: ModelSpec, path: Path) -> upstream.T3:
    """As upstream's `from_local`, but without first making random weights and 67 MB of causal mask per layer."""
    with torch.device("meta"):
        model = upstream.t3(spec)
    model.load_state_dict(load_file(path), strict=True, assign=True)
    del model.tfmr.wte
    return model.eval()


def conditioning(voice: Voice) -> upstream.T3Cond:
    return upstream.T3Cond(
        speaker_emb=torch.tensor(voice.speaker_embedding)[None],
        cond_prompt_speech_tokens=torch.tensor(voice.t3_prompt_tokens)[None],
    )


def greedy_tokens(model: upstream.T3, request: T3Request, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What `inference_turbo` makes when every draw takes the likeliest of the processed tokens."""
    monkeypatch.setattr(torch, "multinomial", lambda probs, num_samples: probs.argmax(-1, keepdim=True))
    sampling = request.sampling
    tokens = model.inference_turbo(
        conditioning(request.voice),
        torch.tensor(request.text_tokens)[None],
        temperature=1.0,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        max_gen_len=sampling.max_speech_tokens,
    )
    return tokens[0].tolist()


@torch.inference_mode()
def logits(model: upstream.T3, request: T3Request, speech_tokens: list[int]) -> torch.Tensor:
    """Logits after the prompt and after each of `speech_tokens`, read in one pass: (1 + n, 6563)."""
    embeddings, _ = model.prepare_input_embeds(
        t3_cond=conditioning(request.voice),
        text_tokens=torch.tensor(request.text_tokens)[None],
        speech_tokens=torch.tensor([[model.hp.start_speech_token, *speech_tokens]]),
    )
    hidden = model.tfmr(inputs_embeds=embeddings)[0]
    return model.speech_head(hidden)[0, -1 - len(speech_tokens) :]
