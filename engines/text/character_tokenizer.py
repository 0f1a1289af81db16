"""The tokenizer of standard and Multilingual: BPE over characters, a token for a space, one for each language."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from engines.errors import CheckpointError

_SPACE, _START, _STOP, _UNKNOWN = "[SPACE]", "[START]", "[STOP]", "[UNK]"
_CONTROLS = (_SPACE, _START, _STOP, _UNKNOWN, "[PAD]", "[SEP]", "[CLS]", "[MASK]")
_CANGJIE = "[cj_"  # of the codes in which Chinese is written, which speak


class CharacterTokenizer:
    """The tokenizer of a file, equal to upstream's `EnTokenizer` and `MTLTokenizer` behind their front ends."""

    def __init__(self, path: Path, text_vocab: int) -> None:
        """Raises CheckpointError if the file is missing or invalid, lacks [START] or [STOP], or has an id that is not
        below `text_vocab`."""
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise CheckpointError(f"{path}: not a readable tokenizer ({error})") from error
        vocab: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        lacking = [name for name in (_SPACE, _START, _STOP) if name not in vocab]
        if lacking:
            raise CheckpointError(f"{path}: the tokenizer lacks {' and '.join(lacking)}")
        beyond = sorted((number, token) for token, number in vocab.items() if number >= text_vocab)
        if beyond:
            shown = ", ".join(f"{token!r} = {number}" for number, token in beyond[:5])
            raise CheckpointError(
                f"{path}: {len(beyond)} ids of the tokenizer are beyond T3's text vocabulary of {text_vocab}: {shown}"
            )
        bracketed = tuple(token for token in vocab if token.startswith("[") and token.endswith("]") and len(token) > 2)
        self._silent = {vocab[token] for token in bracketed if not token.startswith(_CANGJIE)}
        self._silent |= {vocab[name] for name in _CONTROLS if name in vocab}
        self.reserved = tuple(sorted(bracketed))  # what no text may contain: each is one token and no speech

    def encode(self, text: str) -> tuple[int, ...]:
        """Returns the text tokens of prepared text."""
        return tuple(self._tokenizer.encode(text.replace(" ", _SPACE)).ids)

    def offsets(self, text: str) -> tuple[tuple[int, int], ...]:
        """Returns the characters of prepared text that each of its text tokens stands for, as [start, stop)."""
        places = [index for index, char in enumerate(text) for _ in range(len(_SPACE) if char == " " else 1)]
        encoded = self._tokenizer.encode(text.replace(" ", _SPACE))
        return tuple((places[start], places[stop - 1] + 1) for start, stop in encoded.offsets)

    def encodes_words(self, text_tokens: tuple[int, ...]) -> bool:
        """Whether one of `text_tokens` stands for a letter, a digit or a character's code."""
        tokens = (self._tokenizer.id_to_token(number) for number in text_tokens if number not in self._silent)
        return any(token is not None and any(char.isalnum() for char in token) for token in tokens)
