"""The trained nets -> a checkpoint folder in upstream's layout, in half precision.

Knows how the engine's files name and fold what training kept otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tools.tiny import codes
from tools.tiny.compose import usual_sounds
from tools.tiny.engine import (
    MEL_FRAMES_PER_TOKEN,
    SPEECH_CODES,
    TINY,
    Estimator,
    TokenEncoder,
    Vocoder,
    Voice,
    flow_module,
    save_builtin,
    tokenizer,
    vocoder_weights,
    xvector,
)
from tools.tiny.lexicon import fetch_scowl, make_lexicon, write_tokenizer
from tools.tiny.nets import Run
from tools.tiny.speak_t3 import SURENESS
from tools.tiny.train_voices import solve_xvectors
from tools.tiny.voices import VOICES, speaker_embeddings, x_vectors

_MEAN_OF = 3  # residual blocks, folded into these weights by the engine
_T3_PROMPT_TOKENS, _S3GEN_PROMPT_TOKENS = 25, 75
_MEANS = ("ups.1.weight", "ups.2.weight", "conv_post.weight")
_EXACT = ("_mel_filters", "window", "running_var", "running_mean", "num_batches_tracked", "similarity")
Tensors = dict[str, Tensor]


def t3_tensors(run: Run) -> tuple[Tensors, Any]:
    """T3's tables for the lexicon, and the lexicon."""
    lexicon = make_lexicon(run.wordnet, fetch_scowl(run.folder / "scowl"), usual_sounds(run.sentences))
    tensors = run.trained("t3").tables(torch.from_numpy(lexicon.symbols), torch.from_numpy(lexicon.stressed))
    tensors["speech_head.weight"] = tensors["speech_head.weight"] * SURENESS
    return tensors, lexicon


def flow_tensors(encoder: TokenEncoder, cfm: Estimator) -> Tensors:
    """Every sound's row goes to all of its codes."""
    sounds = codes.sounds_of(np.arange(SPEECH_CODES))
    tensors = dict(encoder.state_dict())
    tensors["input_embedding.weight"] = tensors["input_embedding.weight"][torch.from_numpy(sounds)]
    tensors |= {f"decoder.estimator.{name}": value for name, value in cfm.state_dict().items()}
    return {flow_module.PREFIX + name: value for name, value in tensors.items()}


def vocoder_tensors(net: Vocoder) -> Tensors:
    """Weight norms and Snakes apart again: training used them folded, as the engine does."""
    state = dict(net.state_dict())
    for name in _MEANS:
        state[name] = state[name] * _MEAN_OF
    for name in [name for name in state if ".activations1." in name]:
        alpha, block, index = state[name], name.split(".activations1.")[0], name.split(".")[-2]
        state[name.replace(".activations1.", ".activations2.")] = torch.ones_like(alpha)
        first = f"{block}.convs1.{index}.weight"
        state[first] = state[first] * alpha[None, :, None]
    tensors: Tensors = {}
    normed = [name for name, module in net.named_modules() if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)]
    for name, value in state.items():
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module in normed and not name.startswith("source_downs."):
            tensors[f"{module}.{vocoder_weights.GAIN}"] = torch.linalg.vector_norm(value, dim=(1, 2), keepdim=True)
            tensors[f"{module}.{vocoder_weights.DIRECTION}"] = value
        else:
            tensors[name] = value
    return {vocoder_weights.PREFIX + name: value for name, value in tensors.items()}


def export(run: Run, folder: Path) -> None:
    """Write everything the engine opens, and VOICE.pt for every voice that is not built in."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors, lexicon = t3_tensors(run)
    _save(folder / TINY.t3_file, tensors)
    write_tokenizer(folder, lexicon)
    nets = flow_tensors(run.trained("encoder"), run.trained("cfm")) | vocoder_tensors(run.trained("vocoder"))
    nets |= {tokenizer.PREFIX + name: value for name, value in run.trained("hearing").state_dict().items()}
    nets |= {xvector.PREFIX + name: value for name, value in solve_xvectors(TINY, run.streams).state_dict().items()}
    _save(folder / "s3gen_meanflow.safetensors", nets)
    _save(folder / "ve.safetensors", dict(run.trained("speaker").state_dict()))
    for voice, name in enumerate(VOICES):
        save_builtin(make_voice(run, voice), folder / ("conds.pt" if voice == 0 else f"{name}.pt"))


def replace_vocoder(run: Run, folder: Path) -> None:
    """Put the vocoder as it is now into a checkpoint folder; everything else in it stays."""
    path = folder / TINY.s3gen_name
    made = {name: _half(name, value).contiguous() for name, value in vocoder_tensors(run.trained("vocoder")).items()}
    save_file(load_file(path) | made, path)


def make_voice(run: Run, voice: int) -> Voice:
    """A voice from its own sentences with the codes and vectors that it was trained with.

    Prompts are short: they cost work in every window.
    """
    stream = run.streams[voice]
    prompt = codes.code_of_sound(stream.sounds[:_S3GEN_PROMPT_TOKENS])
    return Voice(
        name=VOICES[voice],
        speaker_embedding=speaker_embeddings()[voice],
        t3_prompt_tokens=prompt[:_T3_PROMPT_TOKENS],
        s3gen_prompt_tokens=prompt,
        s3gen_prompt_mel=stream.mel[: MEL_FRAMES_PER_TOKEN * _S3GEN_PROMPT_TOKENS].astype(np.float32),
        x_vector=x_vectors()[voice],
        metadata={"source": f"hibari-tts 0.2.1, {VOICES[voice]}"},
    )


def _save(path: Path, tensors: Tensors) -> None:
    save_file({name: _half(name, value).contiguous() for name, value in tensors.items()}, path)


def _half(name: str, value: Tensor) -> Any:
    exact = not value.is_floating_point() or any(part in name for part in _EXACT)
    return value.clone() if exact else value.half()
