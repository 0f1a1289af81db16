"""The parity check of T3 in production: its logits against T3's torch net in float32, before the first stream.

Production runs compiled kernels, CUDA graphs, another attention and half precision, and no error would show in any of
them but as worse speech. Both read the same forced speech tokens, so that one difference does not lead to another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from engines.errors import EngineError
from engines.model_spec import SPEAKER_EMBEDDING_DIM, SPEECH_CODES, T3Spec
from engines.t3.backend import T3Request
from engines.t3.llama.lanes import LaneSlot
from engines.t3.llama.net import LlamaNet
from engines.t3.load import TorchNet
from engines.t3.net import Span
from engines.voice import Voice

_STEPS = 64
_PROMPT_TOKENS, _TEXT_TOKENS = 100, 30
# dtype: the largest error relative to the logits' norm, and the least share of steps whose likeliest token is the same
_TOLERANCE = {"float32": (1e-3, 0.98), "float16": (2e-2, 0.97), "bfloat16": (1e-1, 0.85)}


class T3Refused(EngineError):
    """T3 on a runtime computes something else than T3's net."""

    reason: str = "T3_REFUSED"


@dataclass(frozen=True)
class Comparison:
    """The worst step's error and the share of equal likeliest tokens, of all requests of one kind."""

    name: str
    dtype: str
    error: float
    same: float

    @property
    def passed(self) -> bool:
        """Whether both are within the tolerance; False for NaN."""
        most, least = _TOLERANCE[self.dtype]
        return self.error <= most and self.same >= least

    def __str__(self) -> str:
        most, least = _TOLERANCE[self.dtype]
        return (
            f"{self.name}: logits off by {self.error:.2g} (allowed {most:.2g}), the same likeliest token in "
            f"{self.same:.0%} of the steps (at least {least:.0%})"
        )


class ForcedEngine(Protocol):
    """What the check drives: VllmEngine, or ForcedSteps."""

    def forced_logits(self, requests: Mapping[str, T3Request], codes: Sequence[int]) -> Mapping[str, Sequence[Tensor]]:
        """Each request's logits (vocabulary,) on the host, after its prompt and after each code but the last.

        It reads the codes instead of what is drawn.
        """
        ...


class T3ParityCheck:
    """The forced request and T3's logits for it. It keeps no net."""

    def __init__(self, net: TorchNet) -> None:
        """`net`: T3 in float32, on any device."""
        rng = np.random.default_rng(0)
        self._codes = rng.integers(0, SPEECH_CODES, _STEPS).tolist()
        rules = net.family
        # as many are drawn as codes are given, and the last is not read
        sampling = replace(rules.sampling, max_speech_tokens=_STEPS - rules.end.uncounted_draws)
        text = tuple(rng.integers(0, net.spec.text_vocab, _TEXT_TOKENS).tolist())
        self._request = T3Request(text, _voice(rng), sampling)
        self._expected = _expected_logits(net, self._request, self._codes)

    def compare(self, engine: ForcedEngine, dtype: str, max_streams: int) -> list[Comparison]:
        """The engine's logits alone, alone with the prefix cached, and with all streams together."""
        kinds = {"alone": 1, "alone, its prefix cached": 1, f"{max_streams} together": max_streams}
        return [self._compare(engine, name, dtype, streams) for name, streams in kinds.items()]

    def raise_if_wrong(self, engine: ForcedEngine, dtype: str, max_streams: int, runtime: str) -> list[Comparison]:
        """As `compare`. Raises T3Refused."""
        comparisons = self.compare(engine, dtype, max_streams)
        if wrong := [str(comparison) for comparison in comparisons if not comparison.passed]:
            raise T3Refused(f"T3 on {runtime} failed its parity check: {'; '.join(wrong)}.")
        return comparisons

    def _compare(self, engine: ForcedEngine, name: str, dtype: str, streams: int) -> Comparison:
        requests = [f"parity {name} {stream}" for stream in range(streams)]
        got = engine.forced_logits(dict.fromkeys(requests, self._request), self._codes)
        errors, same = [], []
        for request in requests:
            logits = torch.stack(list(got[request]))
            assert logits.shape == self._expected.shape
            errors.append((logits - self._expected).norm(dim=-1) / self._expected.norm(dim=-1))
            same.append((logits.argmax(-1) == self._expected.argmax(-1)).float())
        return Comparison(name, dtype, float(torch.stack(errors).max()), float(torch.stack(same).mean()))


@torch.inference_mode()
def _expected_logits(net: TorchNet, request: T3Request, codes: Sequence[int]) -> Tensor:
    """(steps, vocabulary) float32 on the host."""
    prompt = net.embed_prompt(request.voice, request.text_tokens, sampling=request.sampling)
    speech = net.embed_speech(codes[:-1])
    rows = torch.cat([prompt, speech.expand(len(speech), *prompt.shape[1:])])
    slot = net.new_slot(len(rows))
    if isinstance(slot, LaneSlot):
        slot.use_lanes(prompt.shape[1])
    slot.reserve(len(rows))
    hidden = net.forward(rows, [Span(slot, 0, len(rows))]).view(rows.shape)[len(prompt) - 1 :]
    if not isinstance(net, LlamaNet):
        return net.speech_logits(hidden).float().cpu()
    weights = hidden.new_full((len(hidden), 1), request.sampling.cfg_weight, dtype=torch.float32)
    return net.guided_logits(hidden[:, 0], hidden[:, 1], weights).cpu()


def _voice(rng: np.random.Generator) -> Voice:
    """Only T3's part of it is used."""
    direction = rng.standard_normal(SPEAKER_EMBEDDING_DIM).astype(np.float32)
    return Voice(
        name="parity check",
        speaker_embedding=direction / np.linalg.norm(direction),
        t3_prompt_tokens=rng.integers(0, SPEECH_CODES, _PROMPT_TOKENS),
        s3gen_prompt_tokens=np.zeros(1, np.int64),
        s3gen_prompt_mel=np.zeros((2, 80), np.float32),
        x_vector=np.zeros(192, np.float32),
    )


def supported(spec: T3Spec, max_positions: int) -> bool:
    """Whether the forced request fits a sequence."""
    return min(spec.positions, max_positions) >= 1 + _PROMPT_TOKENS + _TEXT_TOKENS + 1 + _STEPS
