"""T3 of standard and Multilingual against the published package (0.1.7, without its analyzer), on the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopPLogitsWarper,
)

from engines.checkpoints.tensor_file import write_tensors
from engines.config import Sampling
from engines.model_spec import (
    MULTILINGUAL_TINY,
    STANDARD,
    STANDARD_TINY,
    START_SPEECH_TOKEN,
    STOP_SPEECH_TOKEN,
    ModelSpec,
)
from engines.t3.backend import T3Request
from engines.t3.decoder import T3Decoder
from engines.t3.family import LLAMA
from engines.t3.llama.net import LlamaNet
from engines.t3.random_weights import random_tensors
from engines.t3.sampler import Sampler
from tests.engines.t3.setting import CPU, limits, run, voice
from tests.reference import t3_llama_upstream as theirs

STEPS = 200
# the published width with fewer layers: all 30 take 9 GB and a minute
WIDE = replace(STANDARD, name="wide", t3=replace(STANDARD.t3, layers=3))


class Pair:
    """Both implementations on one file."""

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        self.spec, path = spec, folder / spec.t3_file
        write_tensors(path, _endless(random_tensors(spec, seed=3)))
        self.upstream = theirs.load(spec, path)
        self.ours = LlamaNet.load(path, spec, CPU)

    def request(self, sampling: Sampling, seed: int = 5, text: int = 40) -> T3Request:
        ids = np.random.default_rng(seed).integers(1, self.spec.t3.text_vocab, text)
        return T3Request(tuple(ids.tolist()), voice(seed, 150), sampling)


def _endless(tensors):
    for name, values in tensors:
        if name == "speech_head.weight":
            values[STOP_SPEECH_TOKEN] *= -1
        yield name, values


@pytest.fixture(scope="module", params=[STANDARD_TINY, MULTILINGUAL_TINY, WIDE], ids=lambda spec: spec.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(request.param, tmp_path_factory.mktemp("t3"))


def sampling(**changed: float) -> Sampling:
    return replace(LLAMA.sampling, **changed)


def test_conditioning_is_upstreams(pair: Pair) -> None:
    """Speaker, perceiver and exaggeration; prompts shorter than 150 tokens too."""
    for tokens, exaggeration in ((150, 0.5), (7, 1.3)):
        of = voice(1, tokens)
        with torch.inference_mode():
            expected = pair.upstream.prepare_conditioning(theirs.conditioning(of, exaggeration))[0]
            settings = sampling(exaggeration=exaggeration, cfg_weight=0.0)
            ours = pair.ours.embed_prompt(of, [1, 2, 3], sampling=settings)[:34, 0]
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
        assert expected.std(0).mean() > 0.1


@pytest.mark.parametrize("weight", [0.3, 0.5, 1.0])  # at 0 upstream's loop meets one row where it expects two
def test_greedy_tokens_are_upstreams(pair: Pair, weight: float) -> None:
    steps = STEPS if pair.spec is not WIDE else 8
    request = pair.request(sampling(temperature=0, cfg_weight=weight, exaggeration=0.7, max_speech_tokens=steps))
    expected, _ = theirs.tokens(pair.upstream, request)
    (ours,) = run(T3Decoder(pair.ours, limits(prefill_chunk_positions=17)), request)
    assert ours == expected
    assert len(ours) == steps, "these weights must not stop within the steps that are compared"
    assert len(set(ours)) > steps // 2, "a few tokens over and over would prove little"


def test_drawn_tokens_of_a_batch_are_upstreams(pair: Pair) -> None:
    """Different weights, exaggerations, texts and settings at once; one without guidance beside them."""
    steps = 60 if pair.spec is not WIDE else 6
    settings = [
        sampling(seed=7, cfg_weight=0.5),
        sampling(seed=8, cfg_weight=0.3, exaggeration=1.5, top_p=0.9),
        sampling(seed=9, cfg_weight=1.0, temperature=1.3, min_p=0.0, repetition_penalty=2.0),
    ]
    requests = [
        pair.request(replace(each, max_speech_tokens=steps), seed=n, text=10 + 20 * n)
        for n, each in enumerate(settings)
    ]
    unguided = pair.request(sampling(seed=3, cfg_weight=0.0, max_speech_tokens=steps))
    alone = run(T3Decoder(pair.ours, limits()), unguided)[0]
    *ours, beside = run(T3Decoder(pair.ours, limits(prefill_chunk_positions=23)), *requests, unguided)
    assert ours == [theirs.tokens(pair.upstream, request)[0] for request in requests]
    assert beside == alone


SETTINGS = [
    LLAMA.sampling,
    sampling(top_p=0.8),
    sampling(min_p=0.0, top_p=0.5, temperature=1.0),
    sampling(min_p=0.3, repetition_penalty=2.0, temperature=0.5),
    sampling(min_p=0.0, repetition_penalty=1.0, temperature=2.0),
]


@pytest.mark.parametrize("drawn_tokens", [0, 1, 40])
@pytest.mark.parametrize("spread", [0.5, 3.0, 9.0])
def test_sampling_probabilities_are_upstreams(spread: float, drawn_tokens: int) -> None:
    """One batch of rows with different settings and histories, each against upstream's steps on that row alone."""
    vocab = LLAMA.speech_vocab
    sampler, slots = Sampler(len(SETTINGS), CPU, vocab=vocab, rows=LLAMA.rows), list(range(len(SETTINGS)))
    for slot, each in enumerate(SETTINGS):
        sampler.begin(slot, each)
    generator = torch.Generator().manual_seed(int(spread * 10) + drawn_tokens)
    history = torch.randint(0, vocab, (len(SETTINGS), drawn_tokens), generator=generator)
    for tokens in history.T:
        certain = torch.zeros(len(SETTINGS), vocab).scatter_(1, tokens[:, None], 1e4)
        assert sampler.sample(slots, certain) == tokens.tolist()
    logits = spread * torch.randn(len(SETTINGS), vocab, generator=generator)
    # histories of likely tokens, and a likely start mark, or the penalty would fall on tokens that are ruled out anyway
    logits.scatter_(1, history, spread * (2 + torch.rand(history.shape, generator=generator)))
    logits[:, START_SPEECH_TOKEN] = 3 * spread
    ours = sampler.probabilities(slots, logits)
    for slot, each in enumerate(SETTINGS):
        seen = torch.tensor([[START_SPEECH_TOKEN, *history[slot].tolist()]])
        scores = RepetitionPenaltyLogitsProcessor(each.repetition_penalty)(seen, logits[slot : slot + 1])
        scores = MinPLogitsWarper(each.min_p)(seen, scores / each.temperature)
        expected = TopPLogitsWarper(each.top_p)(seen, scores).softmax(-1)[0]
        torch.testing.assert_close(ours[slot], expected, rtol=0, atol=1e-5)
