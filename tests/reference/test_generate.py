"""Whole calls of `generate` of the published package (0.1.7, without its analyzer) against our stages, from the text to
what S3Gen is given; test_s3gen.py compares what S3Gen makes of it."""

from __future__ import annotations

import asyncio
import itertools
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import engines
from engines.checkpoints.checkpoint import open_checkpoint
from engines.config import EngineConfig, Sampling
from engines.model_spec import SPEECH_CODES
from engines.pipeline import Pipeline
from engines.t3.backend import T3Request
from tests.reference import t3_llama_upstream, upstream

if "perth" not in sys.modules:  # the watermarker, which generate applies at last
    sys.modules["perth"] = types.ModuleType("perth")

from chatterbox.models.tokenizers import EnTokenizer, MTLTokenizer
from chatterbox.mtl_tts import ChatterboxMultilingualTTS
from chatterbox.tts import ChatterboxTTS, Conditionals

if sys.modules["perth"].__spec__ is None:  # other tests check whether the real one is installed
    del sys.modules["perth"]

STEPS = 60
TEXTS = [
    ("standard-tiny", "", "Good morning: the weather is fine... isn't it; or not"),
    ("standard-tiny", "", "hello - “quoted” text, and 21 days"),
    ("multilingual-tiny", "de", "Schöne Grüße aus Köln – bis morgen!"),
    ("multilingual-tiny", "ko", "안녕하세요, 세계!"),
    ("multilingual-tiny", "hi", "नमस्ते, आप कैसे हैं"),
]
SETTINGS = {"temperature": 0.9, "cfg_weight": 0.4, "exaggeration": 0.8, "repetition_penalty": 1.4, "min_p": 0.03}


class Given(Exception):
    """S3Gen was called with these speech tokens and this voice."""

    def __init__(self, speech_tokens: torch.Tensor, ref_dict: dict[str, Any]) -> None:
        self.speech_tokens, self.ref_dict = speech_tokens, ref_dict


class StopsAtS3Gen:
    def inference(self, **given: Any) -> None:
        raise Given(**given)


@dataclass
class Pair:
    """A checkpoint of random weights as our engine and as upstream's."""

    ours: Pipeline
    theirs: ChatterboxTTS | ChatterboxMultilingualTTS
    runner: asyncio.Runner

    def upstreams(self, text: str, language: str, sampling: Sampling) -> Given:
        steps = itertools.count()
        arguments = {"language_id": language} if language else {}
        drawing = t3_llama_upstream.drawing(lambda probs: t3_llama_upstream.draw(probs, sampling, next(steps)))
        with drawing, pytest.raises(Given) as given:
            self.theirs.generate(text, **arguments, **SETTINGS)
        return given.value

    def our_tokens(self, text: str, language: str, sampling: Sampling) -> list[int]:
        return self.runner.run(self._tokens(text, language, sampling))

    async def _tokens(self, text: str, language: str, sampling: Sampling) -> list[int]:
        stages, voice = self.ours.stages, self.ours.default_voice
        assert voice is not None
        generation = stages.t3.start(T3Request(stages.encode_text(text, language), voice, sampling))
        tokens: list[int] = []
        while new := await generation.next_speech_tokens():
            tokens += new
        return tokens


@pytest.fixture(scope="module")
def pairs() -> Iterator[dict[str, Pair]]:
    with asyncio.Runner() as runner:
        made = {name: _pair(name, runner) for name in ("standard-tiny", "multilingual-tiny")}
        yield made
        for pair in made.values():
            runner.run(pair.ours.close())


def _pair(name: str, runner: asyncio.Runner) -> Pair:
    checkpoint = open_checkpoint(f"random:{name}", cache_dir=None, device="cpu")
    t3 = t3_llama_upstream.load(checkpoint.spec, checkpoint.t3_path)
    limited, inference = types.MethodType(type(t3).inference, t3), {"max_new_tokens": STEPS}
    t3.inference = lambda **given: limited(**(given | inference))  # upstream's own limit of 1000 takes minutes
    voice_encoder = upstream.voice_encoder(checkpoint.spec)
    voice_encoder.load_state_dict(load_file(checkpoint.voice_encoder_path))
    kind, of = (ChatterboxMultilingualTTS, MTLTokenizer) if checkpoint.spec.languages else (ChatterboxTTS, EnTokenizer)
    assert checkpoint.conds_path is not None
    theirs = kind.__new__(kind)
    theirs.t3, theirs.s3gen, theirs.ve, theirs.device, theirs.sr = t3, StopsAtS3Gen(), voice_encoder, "cpu", 24_000
    theirs.tokenizer = of(str(checkpoint.folder / checkpoint.spec.tokenizer_name))
    theirs.conds = Conditionals.load(checkpoint.conds_path)
    config = EngineConfig(
        model=f"random:{name}", device="cpu", threads=1, max_streams=1, strict_reference=True, t3_dtype="float32"
    )
    ours = engines.load(config)
    assert isinstance(ours, Pipeline)
    return Pair(ours, theirs, runner)


@pytest.mark.parametrize(("model", "language", "text"), TEXTS)
def test_s3gen_is_given_what_upstream_gives_it(pairs: dict[str, Pair], model: str, language: str, text: str) -> None:
    pair = pairs[model]
    sampling = replace(pair.ours.info.sampling, seed=11, max_speech_tokens=STEPS, **SETTINGS)
    given = pair.upstreams(text, language, sampling)
    ours = pair.our_tokens(text, language, sampling)
    expected = given.speech_tokens.tolist()
    assert ours == [token for token in expected if token < SPEECH_CODES]
    assert len(set(ours)) > 10, "too few tokens prove little"
    voice = pair.ours.default_voice
    assert voice is not None
    np.testing.assert_array_equal(given.ref_dict["prompt_token"][0].numpy(), voice.s3gen_prompt_tokens)
    np.testing.assert_array_equal(given.ref_dict["prompt_feat"][0].numpy(), voice.s3gen_prompt_mel)
    np.testing.assert_array_equal(given.ref_dict["embedding"][0].numpy(), voice.x_vector)
