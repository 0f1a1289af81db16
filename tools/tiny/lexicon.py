"""What T3 of the tiny model reads: whole words, pieces of rare words and marks, each with the sounds it stands for.

The pronunciations are those of flite's lexicon and letter-to-sound rules. Knows the tokenizer file it writes and the
units of a sentence; knows no net.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from ctypes import CDLL, RTLD_GLOBAL, c_char_p, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.checkpoints.random_checkpoint import TAGS
from engines.model_spec import TINY
from tools.tiny.codes import PHONES

VOCABULARY = TINY.t3.text_vocab
SLOTS = 12  # phones that a token can have
_PIECES = 1_200  # of the vocabulary
END, SILENT, COMMA, STOP, ASK = range(len(PHONES), len(PHONES) + 5)  # what stands in a slot besides phones
SYMBOLS = len(PHONES) + 5
_MARKS = {",": COMMA, ";": COMMA, ".": STOP, "!": STOP, "?": ASK}
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_UNKNOWN = "<unk>"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LETTER_SOUNDS = "ae b k d eh f g hh ih jh k l m n aa p k r s t ah v w k iy z"
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


@dataclass(frozen=True)
class Sound:
    """Phones and whether each is stressed."""

    phones: tuple[str, ...]
    stressed: tuple[bool, ...]


class Pronouncer:
    """flite's lexicon through libflite."""

    def __init__(self) -> None:
        flite = CDLL("libflite.so.1", mode=RTLD_GLOBAL)
        self._flite = flite
        lexicon = CDLL("libflite_cmulex.so.1", mode=RTLD_GLOBAL)
        lexicon.cmu_lex_init.restype = c_void_p
        self._lexicon = lexicon.cmu_lex_init()
        self._lookup = self._call("lex_lookup", c_void_p, c_void_p, c_char_p, c_char_p, c_void_p)
        self._car = self._call("val_car", c_void_p, c_void_p)
        self._cdr = self._call("val_cdr", c_void_p, c_void_p)
        self._string = self._call("val_string", c_char_p, c_void_p)

    def _call(self, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(self._flite, name)
        function.restype, function.argtypes = result, list(arguments)
        return function

    def __call__(self, word: str) -> Sound:
        if word.endswith("'s") and len(word) > 2:
            stem = self(word[:-2])
            ending = _possessive(stem.phones[-1] if stem.phones else "")
            return Sound(stem.phones + ending, stem.stressed + (False,) * len(ending))
        entry = self._lookup(self._lexicon, word.encode(), None, None)
        names = []
        while entry:
            names.append(self._string(self._car(entry)).decode())
            entry = self._cdr(entry)
        return Sound(tuple(name.rstrip("012") for name in names), tuple(name.endswith("1") for name in names))


def word_counts(wordnet: Path) -> Counter[str]:
    """How often each word stands in WordNet's glosses and examples."""
    counts: Counter[str] = Counter()
    for path in sorted(wordnet.glob("data.*")):
        for line in path.read_text(encoding="latin-1").splitlines():
            counts.update(_WORD.findall(line.partition("|")[2].lower()))
    return counts


@dataclass(frozen=True)
class Lexicon:
    """Token ids in the tokenizer's order, and for each the symbols and stresses of its slots."""

    ids: dict[str, int]
    symbols: np.ndarray[Any, np.dtype[np.int64]]  # (VOCABULARY, SLOTS + 1), closed by END
    stressed: np.ndarray[Any, np.dtype[np.int64]]

    def units(self, text: str) -> list[int] | None:
        """One id for each word and mark, or None where a word is not whole in the vocabulary."""
        found = re.findall(r"[a-z']+|[,.?!;]", text)
        ids = [self.ids.get(unit) for unit in found]
        return None if None in ids else [i for i in ids if i is not None]

    @property
    def silent(self) -> int:
        return self.ids[_UNKNOWN]


def make_lexicon(wordnet: Path) -> Lexicon:
    """The commonest words of WordNet's texts and those of everyday.txt, which WordNet's authors had no use for."""
    say = Pronouncer()
    counts = word_counts(wordnet)
    for word in (Path(__file__).parent / "everyday.txt").read_text().split():
        counts[word] += 1000
    fixed: dict[str, Sound | int] = {_UNKNOWN: SILENT, "'": SILENT, "##'": SILENT, **_MARKS}
    fixed |= {digit: say(name) for digit, name in zip("0123456789", _DIGITS, strict=True)}
    fixed |= {letter: say(letter) for letter in _LETTERS}
    fixed |= {f"##{letter}": _letter(letter) for letter in _LETTERS}
    room = VOCABULARY - len(fixed) - len(TAGS) - _PIECES
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    sounds = {word: sound for word in ranked[: room + 2000] if 0 < len((sound := say(word)).phones) <= SLOTS}
    words = [word for word in sounds if word not in fixed][:room]
    pieces = _endings({word: sounds[word] for word in words})
    entries: dict[str, Sound | int] = fixed | {word: sounds[word] for word in words} | pieces
    entries |= dict.fromkeys(TAGS, SILENT)
    symbols = np.full((VOCABULARY, SLOTS + 1), END, np.int64)
    stressed = np.zeros((VOCABULARY, SLOTS + 1), np.int64)
    for i, sound in enumerate(entries.values()):
        if isinstance(sound, int):
            symbols[i, 0] = sound
            continue
        symbols[i, : len(sound.phones)] = [PHONES.index(phone) for phone in sound.phones]
        stressed[i, : len(sound.phones)] = sound.stressed
    return Lexicon({name: i for i, name in enumerate(entries)}, symbols, stressed)


def _possessive(last: str) -> tuple[str, ...]:
    """What 's adds behind the phone `last`."""
    if last in ("s", "z", "sh", "ch", "jh", "zh"):
        return ("ax", "z")
    return ("s",) if last in ("p", "t", "k", "f", "th") else ("z",)


def _letter(letter: str) -> Sound:
    """A letter inside a word that nothing longer covers."""
    plain = _LETTER_SOUNDS.split()
    return Sound((plain[_LETTERS.index(letter)],), (False,))


def _endings(sounds: dict[str, Sound]) -> dict[str, Sound | int]:
    """The commonest ends of words behind another word, each with the phones that it mostly adds."""
    votes: dict[str, Counter[Sound]] = {}
    for word, sound in sounds.items():
        for cut in range(2, len(word)):
            stem = sounds.get(word[:cut])
            if stem and len(stem.phones) < len(sound.phones) and sound.phones[: len(stem.phones)] == stem.phones:
                tail = Sound(sound.phones[len(stem.phones) :], sound.stressed[len(stem.phones) :])
                votes.setdefault(word[cut:], Counter())[tail] += 1
    plain = [end for end in votes if len(end) > 1 and "'" not in end]
    best = sorted(plain, key=lambda end: (-sum(votes[end].values()), end))[:_PIECES]
    return {f"##{end}": votes[end].most_common(1)[0][0] for end in best}


def write_tokenizer(folder: Path, lexicon: Lexicon) -> None:
    """tokenizer.json for `lexicon`: lower case, words and marks apart, rare words in the longest known pieces."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    plain = {name: i for name, i in lexicon.ids.items() if name not in TAGS}
    model = models.WordPiece(plain, unk_token=_UNKNOWN, continuing_subword_prefix="##", max_input_chars_per_word=60)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"(?<![a-z])'|'(?![a-z])"), " "),
            normalizers.Replace(Regex(r"[^a-z0-9',.?!;]+"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[0-9,.?!;]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    tokenizer.save(str(folder / "tokenizer.json"))
    decoder = {
        str(lexicon.ids[tag]): {"content": tag, "lstrip": False, "rstrip": False, "normalized": False,
                                "single_word": False, "special": False}
        for tag in TAGS
    }  # fmt: skip
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), _UNKNOWN)
    config = {"added_tokens_decoder": decoder, "add_prefix_space": False, **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
