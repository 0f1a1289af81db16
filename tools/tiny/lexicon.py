"""What T3 of the tiny model reads: whole words, pieces of words, letters and marks, each with the phones it stands for.

Words are the commonest of WordNet's and of SCOWL's small lists, with the teacher's pronunciation; pieces say what
letters mostly say. Knows the tokenizer file it writes; knows no net.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.tiny.codes import Ints
from tools.tiny.compose import LONG_WORD, MARK_SYMBOLS, symbols_of
from tools.tiny.engine import TAGS, TINY
from tools.tiny.pieces import Aligned, Pieces, Word, align, halved, learn, read
from tools.tiny.pronounce import SLOTS, Pronouncer, Said
from tools.tiny.teacher import Teacher

VOCABULARY = TINY.t3.text_vocab
_FIRST_PIECES, _LATER_PIECES = 2200, 3000
_REPAIRS = 1500  # entries that stay free for long words whose halves later words hide
_COMMON = ("english-words.10", "american-words.10", "english-words.20", "american-words.20", "english-contractions.10",
           "english-contractions.35", "english-upper.10", "english-upper.35", "english-proper-names.35",
           "english-proper-names.40")  # fmt: skip
_RARER = ("english-words.35", "american-words.35", "english-upper.40", "english-proper-names.50", "english-upper.50")
_COMMON_COUNT, _RARER_COUNT, _EVERYDAY_COUNT = 30, 3, 1000  # as if they stood so often in WordNet's texts
# Letters tell less of a name than of another word, so the usual ones are in the vocabulary.
_LISTS = {
    "everyday.txt": _EVERYDAY_COUNT, "acronyms.txt": _EVERYDAY_COUNT, "names.txt": _EVERYDAY_COUNT,
    "places.txt": _COMMON_COUNT,
}  # fmt: skip
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_UNKNOWN = "<unk>"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CONSONANTS = "B-DF-HJ-NP-TV-XZ"  # capitals without a vowel among them are spelled
_MOST_SPELLED = 5
# Their stops are no pauses.
_TITLES = "dr mr ms st lt vs jr sr mrs gen sgt col rev hon etc prof capt"
_TITLES_SAID = (
    "doctor mister miz saint lieutenant versus junior senior missus general sergeant colonel reverend honorable et "
    "professor captain"
)
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


@dataclass(frozen=True)
class Lexicon:
    """Token ids in the tokenizer's order, and for each the symbols and stresses of its slots."""

    ids: dict[str, int]
    symbols: Ints  # (VOCABULARY, SLOTS + 1)
    stressed: Ints

    @property
    def silent(self) -> int:
        return self.ids[_UNKNOWN]


def fetch_scowl(folder: Path) -> Path:
    """Debian's package scowl, unpacked into `folder` without installing it."""
    there = folder / "usr/share/dict/scowl"
    if not there.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", "scowl"], cwd=folder, check=True)
        subprocess.run(["dpkg-deb", "-x", next(folder.glob("scowl*.deb")).name, "."], cwd=folder, check=True)
    return there


def word_counts(wordnet: Path, scowl: Path) -> Counter[str]:
    """How much each word matters."""
    counts: Counter[str] = Counter()
    for path in sorted(wordnet.glob("data.*")):
        for line in path.read_text(encoding="latin-1").splitlines():
            counts.update(_WORD.findall(line.partition("|")[2].lower()))
    for names, count in ((_COMMON, _COMMON_COUNT), (_RARER, _RARER_COUNT)):
        for name in names:
            counts.update(dict.fromkeys(_listed(scowl / name), count))
    for name, count in _LISTS.items():
        counts.update(dict.fromkeys((Path(__file__).parent / name).read_text().split(), count))
    return counts


def make_lexicon(wordnet: Path, scowl: Path, usual: dict[str, Said]) -> Lexicon:
    """usual: what words mostly sound like in the training texts; the others sound as they do alone."""
    say = Pronouncer(Teacher())
    counts = word_counts(wordnet, scowl)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    sounds = {
        word: said
        for word in ranked[: 2 * VOCABULARY]
        if 0 < len((said := usual.get(word) or say.word(word)).phones) <= SLOTS
    }
    aligned = align([Word(word, said) for word, said in sounds.items() if word.isalpha()])
    entries = _entries(sounds, aligned, learn(aligned, _FIRST_PIECES, _LATER_PIECES), _fixed(say) | _endings(say))
    assert len(entries) == VOCABULARY, len(entries)
    rows = [symbols_of(name, said) for name, said in entries.items()]
    symbols, stressed = (np.stack([row[i] for row in rows]) for i in (0, 1))
    return Lexicon({name: i for i, name in enumerate(entries)}, symbols, stressed)


def _entries(
    sounds: dict[str, Said], aligned: list[Aligned], pieces: Pieces, fixed: dict[str, Said]
) -> dict[str, Said]:
    """As many words as there is room for beside all pieces; a long word is two pieces of its own where that is read
    as the word."""
    first = {piece: said for piece, said in pieces.first.items() if piece not in sounds}
    entries = {f"##{piece}": said for piece, said in pieces.later.items()} | first | fixed
    chunks, room, cut = dict(aligned), VOCABULARY - len(TAGS), []
    for word, said in sounds.items():
        two = halved(Word(word, said), chunks.get(Word(word, said)), LONG_WORD, entries)
        entries |= two or {word: fixed.get(word, said)}
        cut += [word] * bool(two)
        if len(entries) > room - _REPAIRS:
            break
    known = Pieces(entries, {name[2:]: said for name, said in entries.items() if name.startswith("##")})
    entries |= {word: sounds[word] for word in cut if read(word, known) != sounds[word]}
    spare = [word for word in sounds if word not in entries and len(sounds[word].phones) <= LONG_WORD]
    entries |= {word: sounds[word] for word in spare[: max(0, room - len(entries))]}
    return entries | dict.fromkeys(TAGS, Said())


def _fixed(say: Pronouncer) -> dict[str, Said]:
    """What is no word: marks, digits, letters."""
    silent = dict.fromkeys((_UNKNOWN, "'", "##'", *MARK_SYMBOLS), Said())
    digits = {digit: say.word(name) for digit, name in zip("0123456789", _DIGITS, strict=True)}
    titles = {short: say.word(word) for short, word in zip(_TITLES.split(), _TITLES_SAID.split(), strict=True)}
    titles |= {"etc": _said_together(say.word("et"), say.word("cetera"))}
    return silent | digits | {letter: say.letter(letter) for letter in _LETTERS} | {"a": say.word("a")} | titles


def _said_together(a: Said, b: Said) -> Said:
    return Said(a.phones + b.phones, a.stressed + b.stressed)


def _endings(say: Pronouncer) -> dict[str, Said]:
    """What any word can end on."""
    z, d = say.word("as"), say.word("add")
    tails = {"##'s": z, "##s": z, "##d": d, "##'d": d}
    made = {name: Said(said.phones[-1:], (False,)) for name, said in tails.items()}
    for name, word, count in (("##'ll", "bottle", 2), ("##'re", "her", 2), ("##'ve", "live", 1)):
        made[name] = Said(say.word(word).phones[-count:], (False,) * min(count, len(say.word(word).phones)))
    return made


def _listed(path: Path) -> list[str]:
    words = path.read_text(encoding="latin-1").lower().split() if path.exists() else []
    return [word for word in words if _WORD.fullmatch(word)]


def write_tokenizer(folder: Path, lexicon: Lexicon) -> None:
    """tokenizer.json for `lexicon`: lower case, words and marks apart, other words in the longest known pieces."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    plain = {name: i for name, i in lexicon.ids.items() if name not in TAGS}
    model = models.WordPiece(plain, unk_token=_UNKNOWN, continuing_subword_prefix="##", max_input_chars_per_word=60)
    tokenizer = Tokenizer(model)
    more = rf"(?=[{_CONSONANTS}]{{1,{_MOST_SPELLED - 1}}}(?![A-Za-z]))"
    apart = Regex(_behind("[^A-Za-z]", rf"[{_CONSONANTS}]", more))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            *[normalizers.Replace(apart, " ")] * (_MOST_SPELLED - 1),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"(?<![a-z])'|'(?![a-z])"), " "),
            normalizers.Replace(Regex(r"[^a-z0-9',.?!;:]+"), " "),
            normalizers.Replace(Regex(r"(?<=[.?!,;:]) *[.?!,;:]"), ""),  # of several marks the first
            normalizers.Replace(Regex(_silent_stops()), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[0-9,.?!;:]"), "isolated")]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(_config(lexicon), indent=1))


def _behind(before: str, word: str, what: str) -> str:
    """Matches `what` behind a whole `word`; `before` is a letter that none may have before it."""
    return rf"(?<={before}{word}){what}|(?<=^{word}){what}"


def _silent_stops() -> str:
    """Matches stops without a pause: behind a title, and behind a letter that more follows."""
    by_length: dict[int, list[str]] = {}
    for title in _TITLES.split():
        by_length.setdefault(len(title), []).append(title)
    titles = [_behind("[^a-z']", f"(?:{'|'.join(words)})", r"\.") for words in by_length.values()]
    return "|".join([_behind("[^a-z']", "[a-hj-z]", r"\.(?= *[a-z0-9,;:])"), *titles])


def _config(lexicon: Lexicon) -> dict[str, object]:
    decoder = {
        str(lexicon.ids[tag]): {"content": tag, "lstrip": False, "rstrip": False, "normalized": False,
                                "single_word": False, "special": False}
        for tag in TAGS
    }  # fmt: skip
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), _UNKNOWN)
    return {"added_tokens_decoder": decoder, "add_prefix_space": False, **roles}
