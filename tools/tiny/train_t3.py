"""T3 learns text -> codes: the voice, a prompt, the sentence's tokens, then a code for every 40 ms.

Knows how a sentence becomes a row of T3's sequence; the net is t3_net.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.model_spec import SPEECH_CODES
from tools.tiny.codes import COUNTERS, decode
from tools.tiny.dataset import Clip
from tools.tiny.lexicon import Lexicon
from tools.tiny.t3_net import T3Train
from tools.tiny.trainer import Losses, tensor
from tools.tiny.voices import speaker_embeddings

_ROWS = 20
_LONG_EVERY, _LONG_ROWS = 5, 4  # batches with prompts as long as reference clips give
_SILENT_SHARE = 0.02  # text tokens without a sound that are strewn in
_MOST_MISHEARD = 0.8  # of a prompt: the net that hears reference audio is often wrong
_EMBEDDING_NOISE = 0.02
_Z_LOSS = 1e-3  # keeps logits near log probabilities, so that a repetition penalty finds little to scale
_LARGEST_SHIFT = 370

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sentence:
    voice: int
    text: Ints
    sounds: Ints
    units: Ints  # for each sound, which text token it speaks


def sentences(clips: list[Clip], lexicon: Lexicon) -> list[Sentence]:
    """The clips whose words are all in the vocabulary."""
    found = []
    for clip in clips:
        ids = lexicon.units(clip.text)
        if ids is not None:
            assert clip.units.max() < len(ids), clip.text
            found.append(Sentence(clip.voice, np.array(ids), clip.sounds.astype(np.int64), clip.units.astype(np.int64)))
    return found


class T3Task:
    def __init__(self, net: T3Train, clips: list[Clip], lexicon: Lexicon) -> None:
        self._net, self._silent = net, lexicon.silent
        every = sentences(clips, lexicon)
        print(f"{len(every)} of {len(clips)} sentences have whole words only", flush=True)
        self._sentences = sorted(every, key=lambda one: len(one.sounds))
        self._by_voice = {voice: [one for one in every if one.voice == voice] for voice in {one.voice for one in every}}
        self._speakers = speaker_embeddings()

    def losses(self, step: int) -> Losses:
        draw = np.random.default_rng([step, 3])
        is_long = step % _LONG_EVERY == _LONG_EVERY - 1
        rows = _LONG_ROWS if is_long else _ROWS
        first = int(draw.integers(len(self._sentences) - rows))  # neighbours in length
        prompt = int(draw.integers(100, 376)) if is_long else int(draw.choice([0, 25, draw.integers(1, 40)]))
        shift = 0 if is_long else int(draw.integers(0, _LARGEST_SHIFT - prompt)) * int(draw.random() < 0.7)
        batch = [self._row(one, draw, prompt, shift) for one in self._sentences[first : first + rows]]
        x, positions = (_padded([row[i] for row in batch]) for i in (0, 1))
        hidden = self._net.hidden(x, positions)
        ends = [(len(row[0]) - len(row[2]), len(row[0])) for row in batch]
        said = torch.cat([hidden[i, start:stop] for i, (start, stop) in enumerate(ends)])
        sounds, counters, stops = (torch.cat([row[i] for row in batch]) for i in (2, 3, 4))
        logp, total = self._net.log_probabilities(said, sounds, counters, stops)
        nll = -logp.mean()
        return {"loss": nll + _Z_LOSS * total.square().mean(), "nll": nll}

    def _row(self, one: Sentence, draw: np.random.Generator, prompt: int, shift: int) -> tuple[Tensor, ...]:
        """x (n, width), positions (n,), then sound, counter and whether it is the stop for each that is to be said."""
        net = self._net
        text, places = self._strewn(one.text, draw)
        begin = shift + 1 + prompt  # position of the first text token
        counters = (begin + places[one.units]) % COUNTERS
        sounds, counted = tensor(one.sounds), tensor(counters)
        vector = self._speakers[one.voice] + _EMBEDDING_NOISE * draw.standard_normal(256, np.float32)
        speaker = net.speaker(tensor(vector.astype(np.float32)))[None]
        prompted = self._prompt(one.voice, draw, prompt)
        parts = [
            speaker,
            net.speech_rows(*prompted),
            net.text_rows(tensor(text)),
            net.start_in[None],
            net.speech_rows(sounds, counted),
        ]
        x = torch.cat(parts)
        positions = torch.arange(len(x)) + shift
        positions[0] = 0
        positions[1 : 1 + prompt] = torch.arange(1, 1 + prompt)
        stops = torch.zeros(len(sounds) + 1, dtype=torch.bool)
        stops[-1] = True
        return x, positions, _extended(sounds), _extended(counted), stops

    def _strewn(self, text: Ints, draw: np.random.Generator) -> tuple[Ints, Ints]:
        """The text with a few silent tokens in it, and where each of its own tokens went."""
        before = (draw.random(len(text)) < _SILENT_SHARE).astype(int)
        places = np.arange(len(text)) + np.cumsum(before)
        strewn = np.full(len(text) + before.sum(), self._silent)
        strewn[places] = text
        return strewn, places

    def _prompt(self, voice: int, draw: np.random.Generator, tokens: int) -> tuple[Tensor, Tensor]:
        """Sounds and counters (tokens,) of the voice's own sentences; some are heard as anything."""
        own = self._by_voice[voice]
        pieces: list[Ints] = [np.zeros(0, np.int64)]
        while sum(map(len, pieces)) < tokens:
            pieces.append(own[draw.integers(len(own))].sounds)
        said = np.concatenate(pieces)[:tokens]
        misheard = draw.random(tokens) < draw.random() * _MOST_MISHEARD
        sounds, counters = decode(draw.integers(SPEECH_CODES, size=tokens))
        return tensor(np.where(misheard, sounds, said)), tensor(np.where(misheard, counters, 0))


def _extended(values: Tensor) -> Tensor:
    return torch.cat([values, values.new_zeros(1)])


def _padded(rows: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
