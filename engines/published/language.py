"""T3 from the published graphs: `embed_tokens` and `language_model` as a net of T3's decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor

from engines.config import Sampling
from engines.errors import InvalidInput
from engines.model_spec import TURBO
from engines.onnx.session import BoundSession, SessionSettings, open_session
from engines.published.graphs import EMBED_TOKENS, LANGUAGE_MODEL, PublishedGraphs
from engines.t3.family import GPT2
from engines.t3.net import Span
from engines.t3.passes import EagerPass, Pass
from engines.t3.prompt import check_text_length
from engines.voice import Voice

F32 = npt.NDArray[np.float32]
Past = list[ort.OrtValue]  # key and value of each layer, (1, heads, positions, head width)

# `embed_tokens` reads the last two ids as speech, and this one as the start mark.
_END_OF_TEXT = 50256
_START_IDS = (_END_OF_TEXT, _END_OF_TEXT)


class PastSlot:
    """The KV cache of one sequence as OrtValues. The language model returns new ones at every call."""

    def __init__(self, empty: Callable[[], Past], put: Callable[[F32], ort.OrtValue]) -> None:
        self.length = 0
        self.past = empty()
        self._empty, self._put = empty, put

    def clear(self) -> None:
        """As Slot.clear."""
        self.length, self.past = 0, self._empty()

    def reserve(self, positions: int) -> None:
        """Nothing to do: the language model allocates what it returns."""

    def copy_out(self, positions: int) -> Tensor:
        """As Slot.copy_out, (layers, 2, heads, positions, head width)."""
        parts = np.stack([value.numpy()[0, :, :positions] for value in self.past])
        return torch.from_numpy(parts.reshape(-1, 2, *parts.shape[1:]))

    def load(self, prefix: Tensor) -> None:
        """As Slot.load."""
        self.past = [self._put(part[None].numpy()) for layer in prefix for part in layer]
        self.length = prefix.shape[3]


class PublishedNet:
    """The two graphs as a Net. Its voices must be made by the published speech encoder."""

    name = "onnx-published"
    family = GPT2
    device = torch.device("cpu")
    max_positions = TURBO.t3.positions

    def __init__(self, published: PublishedGraphs, settings: SessionSettings) -> None:
        embed, model = (open_session(published.path(name), settings) for name in (EMBED_TOKENS, LANGUAGE_MODEL))
        self._embed, self._model = BoundSession(embed, settings), BoundSession(model, settings)
        self._outputs = [output.name for output in model.get_outputs()]
        self._caches = [f"{i}.{kind}" for i in range(published.layers) for kind in ("key", "value")]
        self._no_positions = np.zeros((1, published.heads, 0, published.head_width), np.float32)

    def check_prompt(self, voice: Voice, text_tokens: Sequence[int], max_positions: int) -> None:
        """As Net.check_prompt."""
        if voice.t3_prefix is None:
            raise InvalidInput(
                "voice",
                f"voice {voice.name!r} was not made with this model; the published ONNX graphs speak only voices that "
                "were made with them.",
                "VOICE_INCOMPATIBLE",
                value=voice.name,
            )
        text = _without_end(text_tokens)
        check_text_length(text, max_positions - len(voice.t3_prefix) - len(_START_IDS))

    def prefix_positions(self, voice: Voice) -> int:
        """As Net.prefix_positions."""
        assert voice.t3_prefix is not None
        return len(voice.t3_prefix)

    def text_start(self, voice: Voice) -> int:
        """As Net.text_start."""
        return self.prefix_positions(voice)

    def new_slot(self, max_positions: int) -> PastSlot:
        """As Net.new_slot."""
        return PastSlot(lambda: [self._model.put(self._no_positions) for _ in self._caches], self._model.put)

    def new_pass(self, slots: int, max_positions: int) -> Pass:
        """As Net.new_pass."""
        return EagerPass(self, slots, max_positions)

    def embed_prompt(
        self, voice: Voice, text_tokens: Sequence[int], context: Sequence[int] = (), *, sampling: Sampling | None = None
    ) -> Tensor:
        """As Net.embed_prompt: [voice][text][start]."""
        assert voice.t3_prefix is not None
        text = self._embedded([*_without_end(text_tokens), *_START_IDS])
        return torch.from_numpy(np.concatenate([voice.t3_prefix, text]))

    def embed_speech(self, tokens: Sequence[int], places: Sequence[int] | None = None) -> Tensor:
        """As Net.embed_speech."""
        return torch.from_numpy(np.concatenate([self._embedded([token]) for token in tokens]))

    def forward(self, embeddings: Tensor, spans: Sequence[Span[PastSlot]]) -> Tensor:
        """As Net.forward. The graph has the speech head in it: the result is logits, (R, 6563)."""
        logits, first = [], 0
        for span in spans:
            logits.append(self._read(embeddings[first : first + span.rows].numpy(), span))
            first += span.rows
        return torch.from_numpy(np.concatenate(logits))

    def speech_logits(self, hidden: Tensor) -> Tensor:
        """As Net.speech_logits."""
        return hidden

    def _embedded(self, ids: Sequence[int]) -> F32:
        """(n, width) of text ids closed by `_START_IDS`, or of one speech id."""
        (rows,) = self._embed({"input_ids": self._embed.put(np.array([ids], np.int64))})
        embedded: F32 = rows.numpy()[0]
        return embedded

    def _read(self, rows: F32, span: Span[PastSlot]) -> F32:
        """Logits after each row, (n, 6563); the slot gets the longer keys and values."""
        put, stop = self._model.put, span.start + span.rows
        inputs = {
            "inputs_embeds": put(rows[None]),
            "attention_mask": put(np.ones((1, stop), np.int64)),
            "position_ids": put(np.arange(span.start, stop, dtype=np.int64)[None]),
            **{f"past_key_values.{cache}": value for cache, value in zip(self._caches, span.slot.past, strict=True)},
        }
        outputs = dict(zip(self._outputs, self._model(inputs), strict=True))
        span.slot.past = [outputs[f"present.{cache}"] for cache in self._caches]
        logits: F32 = outputs["logits"].numpy()[0]
        return logits


def _without_end(text_tokens: Sequence[int]) -> tuple[int, ...]:
    """The text without the end marks that the published tokenizer may add; exactly two of them are added later."""
    text = tuple(text_tokens)
    while text and text[-1] == _END_OF_TEXT:
        text = text[:-1]
    return text
