"""Our T3 against the published package, on the same weights from one real file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from engines.checkpoints.tensor_file import write_tensors
from engines.config import Sampling
from engines.model_spec import MODELS, SPEECH_VOCAB, START_SPEECH_TOKEN, ModelSpec
from engines.t3.backend import T3Request
from engines.t3.decoder import T3Decoder
from engines.t3.model import T3Net
from engines.t3.random_weights import random_tensors
from engines.t3.sampler import Sampler
from tests.engines.t3.setting import CPU, RecordingNet, limits, run, voice
from tests.reference import t3_upstream

STEPS = 200
# Turbo's step alone takes upstream 0.1 s, so it gets less to read.
PROMPT_AND_TEXT_TOKENS = {"tiny": (375, 60), "nano": (375, 60), "turbo": (60, 12)}


class Pair:
    """Both implementations on one file."""

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        self.spec = spec
        path = folder / spec.t3_file
        write_tensors(path, random_tensors(spec, seed=3))  # one in memory at a time
        self.upstream = t3_upstream.load(spec, path)
        self.ours = T3Net.load(path, spec, CPU)

    def request(self, sampling: Sampling) -> T3Request:
        prompt, text = PROMPT_AND_TEXT_TOKENS[self.spec.name]
        ids = np.random.default_rng(5).integers(0, self.spec.t3.text_vocab, text)
        return T3Request(tuple(ids.tolist()), voice(1, prompt), sampling)


@pytest.fixture(scope="module", params=["tiny", "nano", "turbo"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(MODELS[request.param], tmp_path_factory.mktemp("t3"))


def test_greedy_tokens_are_upstreams(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    request = pair.request(Sampling(temperature=0, max_speech_tokens=STEPS))
    theirs = t3_upstream.greedy_tokens(pair.upstream, request, monkeypatch)
    (ours,) = run(T3Decoder(pair.ours, limits()), request)
    assert ours == theirs
    assert len(ours) == 1 + STEPS, "these weights must not stop within the steps that are compared"
    assert len(set(ours)) > STEPS // 2, "a few tokens over and over would prove little"


def test_logits_are_upstreams_whatever_the_chunks(pair: Pair) -> None:
    """Prompt layout, positions and cache: read in chunks and then token by token, against one pass over all of it."""
    net = RecordingNet(pair.ours)
    request = pair.request(Sampling(temperature=0, max_speech_tokens=20))
    (tokens,) = run(T3Decoder(net, limits(prefill_chunk_positions=50)), request)
    theirs = t3_upstream.logits(pair.upstream, request, tokens[:-1])
    ours = torch.cat(net.logits)
    assert len(ours) == 21
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


SETTINGS = [
    Sampling(),
    Sampling(temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0),
    Sampling(temperature=0.3, top_k=1),
    Sampling(temperature=1.7, top_k=5, top_p=0.5),
    Sampling(top_p=0.05),
    Sampling(top_k=0, top_p=0.8, repetition_penalty=2.0),
    Sampling(top_k=SPEECH_VOCAB, top_p=1.0, repetition_penalty=0.7),
    Sampling(temperature=5.0, top_k=50, top_p=0.99, repetition_penalty=1.05),
]


def upstream_probabilities(sampling: Sampling, history: list[int], logits: torch.Tensor) -> torch.Tensor:
    """The processors as `inference_turbo` chains them; logits (6563,)."""
    chain = LogitsProcessorList()
    if sampling.temperature != 1.0:
        chain.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k > 0:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        chain.append(TopPLogitsWarper(sampling.top_p))
    if sampling.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    return chain(torch.tensor([history]), logits[None]).softmax(-1)[0]


@pytest.mark.parametrize("drawn_tokens", [0, 1, 40])
@pytest.mark.parametrize("spread", [0.5, 3.0, 9.0])
def test_sampling_probabilities_are_upstreams(spread: float, drawn_tokens: int) -> None:
    """One batch of rows with different settings and histories, each against upstream's chain on that row alone."""
    sampler = Sampler(len(SETTINGS), CPU)
    slots = list(range(len(SETTINGS)))
    for slot, sampling in enumerate(SETTINGS):
        sampler.begin(slot, sampling)
    generator = torch.Generator().manual_seed(int(spread * 10) + drawn_tokens)
    history = torch.randint(0, SPEECH_VOCAB, (len(SETTINGS), drawn_tokens), generator=generator)
    for tokens in history.T:
        certain = torch.zeros(len(SETTINGS), SPEECH_VOCAB).scatter_(1, tokens[:, None], 1e4)
        assert sampler.sample(slots, certain) == tokens.tolist()
    logits = spread * torch.randn(len(SETTINGS), SPEECH_VOCAB, generator=generator)
    # histories of likely tokens, or the penalty would only ever fall on tokens that are ruled out anyway
    likely = spread * (2 + torch.rand(history.shape, generator=generator))
    logits.scatter_(1, history, likely)
    ours = sampler.probabilities(slots, logits)
    for slot, sampling in enumerate(SETTINGS):
        theirs = upstream_probabilities(sampling, history[slot].tolist() or [START_SPEECH_TOKEN], logits[slot])
        torch.testing.assert_close(ours[slot], theirs, rtol=0, atol=1e-5)
