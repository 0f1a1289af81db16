"""At the dimensions that are served: vLLM's greedy tokens are the torch backend's, in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from engines.checkpoints.checkpoint import Checkpoint
from engines.config import Sampling
from engines.model_spec import NANO, TURBO, ModelSpec
from engines.t3.backend import T3Request
from engines.t3.decoder import T3Decoder
from engines.t3.model import T3Net
from engines.t3.random_weights import random_tensors
from tests.engines.t3.setting import limits, run, voice
from tests.vllm.setting import vllm_decoder

STEPS = 200
# prompt speech tokens and text tokens; a step of Turbo takes a tenth of a second, so it gets a short prompt
SIZES = {"nano": (375, 60), "turbo": (40, 12)}


@pytest.mark.parametrize("spec", [NANO, TURBO], ids=lambda spec: spec.name)
def test_greedy_tokens_are_the_torch_backends(spec: ModelSpec, tmp_path: Path) -> None:
    save_file(dict(random_tensors(spec, seed=3)), tmp_path / spec.t3_file)
    prompt, text = SIZES[spec.name]
    ids = np.random.default_rng(5).integers(0, spec.t3.text_vocab, text)
    request = T3Request(tuple(ids.tolist()), voice(1, prompt), Sampling(temperature=0, max_speech_tokens=STEPS))
    decoder = vllm_decoder(tmp_path, Checkpoint(tmp_path, spec), kv_blocks=64)
    (ours,) = run(decoder, request)
    decoder.close()
    net = T3Net.load(tmp_path / spec.t3_file, spec, torch.device("cpu"))
    (theirs,) = run(T3Decoder(net, limits(max_streams=1)), request)
    assert ours == theirs
    assert len(ours) == 1 + STEPS, "the weights must not stop within the steps that are compared"
    assert len(set(ours)) > STEPS // 2, "a token over and over would prove little"
