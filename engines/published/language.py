"""T3 from the published graphs: `embed_tokens` and `language_model`, with our sampler, thread and requests.

Knows the two graphs' calls; knows no voice but the rows that `speech_encoder` made of it. Each call gives keys and
values anew, so what was read of a voice once can be the start of any number of sequences.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from engines.api import NULL_OBSERVER, Observer, T3Use
from engines.errors import EngineFailure, invalid_value
from engines.onnx.session import BoundSession, SessionSettings, open_session
from engines.published.graphs import EMBED_TOKENS, LANGUAGE_MODEL, PublishedGraphs
from engines.t3.backend import T3Request
from engines.t3.decoder import Progress, Sequence
from engines.t3.local_backend import Generation, TorchT3Backend
from engines.t3.sampler import Sampler
from engines.t3.speech_tokens import SpeechTokens
from engines.t3.step_loop import StepLoop

F32 = npt.NDArray[np.float32]
Past = list[ort.OrtValue]  # key and value of each layer, (1, heads, positions, head width)

# `embed_tokens` reads the last two ids as speech, where this one stands for the start mark.
_END_OF_TEXT = 50256
_START_IDS = (_END_OF_TEXT, _END_OF_TEXT)
_CHUNK_POSITIONS = 64  # of a prompt, between two steps of those that speak already
_KEPT_VOICES = 4  # 74 MB each for 15 s of reference


class LanguageGraphs:
    """Calls the two graphs. One thread at a time."""

    def __init__(self, published: PublishedGraphs, settings: SessionSettings) -> None:
        embed, model = (open_session(published.path(name), settings) for name in (EMBED_TOKENS, LANGUAGE_MODEL))
        self._embed, self._model = BoundSession(embed, settings), BoundSession(model, settings)
        self._outputs = [output.name for output in model.get_outputs()]
        self._caches = [f"{i}.{kind}" for i in range(published.layers) for kind in ("key", "value")]
        self._empty = np.zeros((1, published.heads, 0, published.head_width), np.float32)

    def embed(self, ids: Ids[int]) -> F32:
        """(n, width) of text ids closed by `_START_IDS`, or of one speech id."""
        (rows,) = self._embed({"input_ids": self._embed.put(np.array([ids], np.int64))})
        embedded: F32 = rows.numpy()[0]
        return embedded

    def nothing(self) -> Past:
        return [self._model.put(self._empty) for _ in self._caches]

    def read(self, rows: F32, past: Past, position: int) -> tuple[F32, Past]:
        """Rows (n, width) from `position` on -> logits (6563,) after the last, and keys and values with them."""
        put, stop = self._model.put, position + len(rows)
        inputs = {
            "inputs_embeds": put(rows[None]),
            "attention_mask": put(np.ones((1, stop), np.int64)),
            "position_ids": put(np.arange(position, stop, dtype=np.int64)[None]),
            **{f"past_key_values.{cache}": value for cache, value in zip(self._caches, past, strict=True)},
        }
        given = dict(zip(self._outputs, self._model(inputs), strict=True))
        logits: F32 = given["logits"].numpy()[0, -1]
        return logits, [given[f"present.{cache}"] for cache in self._caches]


@dataclass(eq=False)
class _Sequence(Sequence):
    """`unread` (n, width): what of the prompt the model has not seen; None once it speaks."""

    unread: F32 | None = None
    past: Past = field(default_factory=list)
    position: int = 0


class PublishedDecoder:
    """As T3Decoder, for StepLoop: every `step` takes each sequence one token, and one prompt one chunk further."""

    def __init__(self, graphs: LanguageGraphs, max_streams: int, max_positions: int) -> None:
        self._graphs = graphs
        self._most_streams, self._max_positions = max_streams, max_positions
        self._read_positions = self._cached_positions = 0  # of prompts
        self._waiting: list[_Sequence] = []
        self._running: list[_Sequence] = []
        self._free = list(range(max_streams))
        self._sampler = Sampler(max_streams, torch.device("cpu"))
        self._voices: OrderedDict[str, Past] = OrderedDict()

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    @property
    def use(self) -> T3Use:
        """What is held now, and how prompts were read so far."""
        held = sum(sequence.position for sequence in self._running)
        return T3Use(held / (self._most_streams * self._max_positions), self._read_positions, self._cached_positions)

    def add(self, request: T3Request) -> Sequence:
        sequence = _Sequence(request, SpeechTokens(request.sampling.max_speech_tokens))
        self._waiting.append(sequence)
        return sequence

    def release(self, sequence: Sequence) -> None:
        """Forget a sequence and free what it holds, wherever it stands. Idempotent."""
        assert isinstance(sequence, _Sequence)
        if sequence in self._running:
            self._running.remove(sequence)
            self._free.append(sequence.slot_index)
            sequence.past, sequence.unread = [], None
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

    def step(self) -> list[Progress]:
        """A failure ends the sequence it concerns and is reported with it; it is never raised."""
        self._admit()
        unread = [sequence for sequence in self._running if sequence.unread is not None]
        due = [sequence for sequence in self._running if sequence.unread is None]
        due += sorted(unread, key=lambda sequence: sequence.request.made_ahead)[:1]
        with torch.inference_mode():
            return [self._advance(sequence) for sequence in due]

    def _admit(self) -> None:
        while self._waiting and self._free:
            sequence = min(self._waiting, key=lambda waiting: waiting.request.made_ahead)
            self._waiting.remove(sequence)
            sequence.slot_index = self._free.pop()
            self._sampler.begin(sequence.slot_index, sequence.request.sampling)
            self._running.append(sequence)
            self._begin(sequence)

    def _begin(self, sequence: _Sequence) -> None:
        """[voice][text][start]; a known voice's rows need not be read again."""
        request = sequence.request
        prefix = request.voice.t3_prefix
        assert prefix is not None
        text = self._graphs.embed([*_without_end(request.text_tokens), *_START_IDS])
        known = self._voices.get(request.voice.key)
        sequence.past, sequence.position = (self._graphs.nothing(), 0) if known is None else (known, len(prefix))
        sequence.unread = text if known is not None else np.concatenate([prefix, text])
        self._cached_positions += sequence.position

    def _advance(self, sequence: _Sequence) -> Progress:
        try:
            if sequence.unread is None:
                return self._draw(sequence, self._read(sequence, self._graphs.embed([sequence.speech.raw[-1]])))
            return self._read_prompt(sequence, sequence.unread)
        except Exception as error:
            self.release(sequence)
            failure = EngineFailure(f"T3 failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            return Progress(sequence, over=True, error=failure)

    def _read_prompt(self, sequence: _Sequence, unread: F32) -> Progress:
        voice = sequence.request.voice
        assert voice.t3_prefix is not None
        of_voice = len(voice.t3_prefix) - sequence.position  # not past the voice's end, where its memory is kept
        rows = min(_CHUNK_POSITIONS, of_voice) if of_voice > 0 else _CHUNK_POSITIONS
        logits = self._read(sequence, unread[:rows])
        self._read_positions += min(rows, len(unread))
        if sequence.position == len(voice.t3_prefix):
            self._keep(voice.key, sequence.past)
        if len(unread) > rows:
            sequence.unread = unread[rows:]
            return Progress(sequence)
        sequence.unread = None
        return self._draw(sequence, logits)

    def _read(self, sequence: _Sequence, rows: F32) -> F32:
        logits, sequence.past = self._graphs.read(rows, sequence.past, sequence.position)
        sequence.position += len(rows)
        return logits

    def _keep(self, key: str, past: Past) -> None:
        self._voices[key] = past
        self._voices.move_to_end(key)
        while len(self._voices) > _KEPT_VOICES:
            self._voices.popitem(last=False)

    def _draw(self, sequence: _Sequence, logits: F32) -> Progress:
        if not np.isfinite(logits).all():
            raise ArithmeticError("logits are not finite")
        (token,) = self._sampler.sample([sequence.slot_index], torch.from_numpy(logits[None]))
        speech_tokens = sequence.speech.accept(token)
        if sequence.speech.finished:
            self.release(sequence)
        return Progress(sequence, speech_tokens, over=sequence.speech.finished)


def _without_end(text_tokens: Ids[int]) -> tuple[int, ...]:
    """The published tokenizer may close the text with its own end marks; exactly two are ours to add."""
    kept = tuple(text_tokens)
    while kept and kept[-1] == _END_OF_TEXT:
        kept = kept[:-1]
    return kept


class PublishedT3Backend(TorchT3Backend):
    """T3Backend on the published graphs; voices must be made by their speech encoder."""

    name = "onnx-published"

    def __init__(
        self,
        published: PublishedGraphs,
        settings: SessionSettings,
        *,
        max_streams: int,
        max_positions: int,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        """`max_positions`: of voice, text and speech of one request."""
        self._max_positions = max_positions
        decoder = PublishedDecoder(LanguageGraphs(published, settings), max_streams, max_positions)
        self._steps = StepLoop(decoder, observer)

    def start(self, request: T3Request) -> Generation:
        """As T3Backend.start. Raises InvalidInput for a voice of other weights, or a text that is empty or cannot fit
        with the speech it may become, and EngineFailure after `close`."""
        if request.voice.t3_prefix is None:
            allowed = "a voice that was made with this model: the published graphs take no other"
            raise invalid_value("voice", request.voice.name, allowed, "VOICE_INCOMPATIBLE")
        text = _without_end(request.text_tokens)
        if not text:
            raise invalid_value("text_tokens", request.text_tokens, "at least one text token", "TEXT_EMPTY")
        taken = len(request.voice.t3_prefix) + len(_START_IDS) + request.sampling.max_speech_tokens
        if len(text) > self._max_positions - taken:
            allowed = f"at most {self._max_positions - taken} text tokens"
            raise invalid_value("text", f"{len(text)} text tokens", allowed, "TEXT_TOO_LONG")
        generation = Generation(self._steps)
        if not self._steps.start(request, generation):
            raise EngineFailure("the engine is closed")
        return generation
