"""Finds the heads that align: T3 speaks calibration texts, and each head is scored for following the text.

The choice is kept in the cache folder under the identity of the weights and of this procedure.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.config import Sampling
from engines.model_spec import SPEECH_CODES
from engines.onnx.export_cache import sha256
from engines.t3.alignment.tap import AlignmentHeads, attention_of, text_positions
from engines.t3.backend import T3Request
from engines.t3.decoder import DecoderLimits, T3Decoder
from engines.t3.load import TorchNet
from engines.t3.net import Span
from engines.voice import Voice
from engines.words.path import F32, MonotonePath

_log = logging.getLogger(__name__)

# Short ones, because a head that looks one token ahead is found out at the first and the last token.
TEXTS = (
    "Good morning to you.",
    "The river rose again.",
    "We open at noon, as on all other days of the week.",
    "Bring the small green box from the kitchen, and close the window when you leave the house.",
)
_MAX_SPEECH_TOKENS = 250
_MIN_SCORE = 0.35  # of attention on the path: heads that do not align have a few hundredths
_MIN_SHARE_OF_BEST = 0.7
_MIN_AGREEMENT = 0.85  # of rows on which a head is at the best head's token
_MIN_REACHED = 0.8  # of a text's tokens that a path goes through
_MAX_HEADS = 3
_VERSION = 2


@dataclass(frozen=True)
class HeadScore:
    """How well one head follows texts: the attention on its own best path, 0 to 1."""

    layer: int
    head: int
    score: float


class _AllQueries:
    """A tap that keeps the queries of every head."""

    constrains = False

    def __init__(self) -> None:
        self.layers: list[Tensor] = []

    def take(self, layer: int, queries: Tensor, positions: int) -> None:
        assert layer == len(self.layers), "layers come in order"
        self.layers.append(queries.clone())


def find_heads(net: TorchNet, encode: Callable[[str], Sequence[int]], voice: Voice) -> AlignmentHeads | None:
    """Returns the best heads, at most three, or None if no head aligns. Speaks the calibration texts with `voice`."""
    attentions = []
    for text in TEXTS:
        tokens = tuple(encode(text))
        sampling = replace(net.family.sampling, seed=1, max_speech_tokens=_MAX_SPEECH_TOKENS)
        attentions.append(attention_to_text(net, voice, tokens, speak(net, voice, tokens, sampling)))
    paths = [_paths(attention) for attention in attentions]
    scores = score_heads(attentions, paths)
    best = scores[0]
    if best.score < _MIN_SCORE:
        _log.info("no head of T3 aligns speech with text: the best, %s, scores %.2f", best, best.score)
        return None
    chosen = [
        each
        for each in scores
        if each.score >= _MIN_SHARE_OF_BEST * best.score and _agreement(paths, each, best) >= _MIN_AGREEMENT
    ][:_MAX_HEADS]
    _log.info("heads of T3 that align speech with text: %s", chosen)
    return AlignmentHeads(tuple((each.layer, each.head) for each in chosen))


def speak(net: TorchNet, voice: Voice, text_tokens: tuple[int, ...], sampling: Sampling) -> list[int]:
    """Returns the speech tokens that T3 draws, without the closing silence."""
    decoder = T3Decoder(net, DecoderLimits(1, prefix_cache_bytes=0))
    sequence = decoder.add(T3Request(text_tokens, voice, sampling))
    while not sequence.speech.finished:
        for progress in decoder.step():
            if progress.error is not None:
                raise progress.error
    return [token for token in sequence.speech.raw if token < SPEECH_CODES]


def attention_to_text(net: TorchNet, voice: Voice, text_tokens: tuple[int, ...], speech_tokens: Sequence[int]) -> F32:
    """The attention of every head by a teacher-forced pass, (layers, heads, speech tokens, text tokens)."""
    text, tap = text_positions(net.text_start(voice), text_tokens), _AllQueries()
    with torch.inference_mode():
        # without guidance there is one lane, that with text
        prompt = net.embed_prompt(voice, text_tokens, sampling=replace(net.family.sampling, cfg_weight=0.0))
        speech = net.embed_speech(speech_tokens)
        first, rows = len(prompt), len(prompt) + len(speech)
        slot = net.new_slot(rows)
        slot.reserve(rows)
        net.forward(torch.cat([prompt, speech]), [Span(slot, 0, rows, tap)])
        parts = [
            attention_of(queries[first:], slot.keys(layer, 0, rows), first)[:, :, text]
            for layer, queries in enumerate(tap.layers)
        ]
        found: F32 = torch.stack(parts).float().cpu().numpy()
    return found


Paths = npt.NDArray[np.int64]  # (layers, heads, speech tokens)


def _paths(attention: F32) -> Paths:
    return np.stack([np.stack([_path(head) for head in layer]) for layer in attention])


def _path(attention: F32) -> npt.NDArray[np.int64]:
    path = MonotonePath(attention.shape[1])
    path.add(attention)
    return path.tokens()


def score_heads(attentions: Sequence[F32], paths: Sequence[Paths]) -> list[HeadScore]:
    """The scores of all heads, best first. Each text token counts alike, so that one that a head never looks at
    lowers its score as much as a long one."""
    layers, heads = attentions[0].shape[:2]
    scores = [
        HeadScore(
            layer,
            head,
            float(np.mean([_score(a[layer, head], p[layer, head]) for a, p in zip(attentions, paths, strict=True)])),
        )
        for layer in range(layers)
        for head in range(heads)
    ]
    return sorted(scores, key=lambda each: -each.score)


def _score(attention: F32, path: npt.NDArray[np.int64]) -> float:
    """The mean over a text's tokens of the attention on the path; 0 for a path that does not go through the text."""
    on_path = attention[np.arange(len(path)), path]
    tokens, counts = np.unique(path, return_counts=True)
    if len(tokens) < _MIN_REACHED * attention.shape[1]:
        return 0.0
    sums = np.bincount(path, on_path)[tokens]
    return float(np.mean(sums / counts))


def _agreement(paths: Sequence[Paths], one: HeadScore, other: HeadScore) -> float:
    return float(np.mean([np.mean(p[one.layer, one.head] == p[other.layer, other.head]) for p in paths]))


def kept_heads(
    t3_path: Path, cache_dir: Path, find: Callable[[], AlignmentHeads | None], adapters: Sequence[Path] = ()
) -> tuple[AlignmentHeads | None, bool]:
    """Returns the heads of these weights, with the adapters in them, and whether they were found now.

    They come from the cache, or from `find` and are then kept.

    If the cache is not writable, nothing is kept.
    """
    digests = [sha256(path, cache_dir) for path in (t3_path, *adapters)]
    identity = f"{_VERSION}|{TEXTS}|{_MAX_SPEECH_TOKENS}|{'|'.join(digests)}"
    file = cache_dir / "alignment" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a damaged file is made again
        content = json.loads(file.read_text())
        pairs = tuple((int(layer), int(head)) for layer, head in content["heads"])
        return (AlignmentHeads(pairs) if pairs else None), False
    heads = find()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        partial.write_text(json.dumps({"heads": [] if heads is None else [list(pair) for pair in heads.heads]}))
        partial.replace(file)
    return heads, True
