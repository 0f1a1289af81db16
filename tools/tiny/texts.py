"""Texts of all kinds and of 1 to 60 tokens, from WordNet 3.0's words and example sentences. Knows no phones."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

_HELD_BACK = 2000  # examples that no training text uses
_WORD = re.compile(r"[a-z]+('[a-z]+)?[,.?!;]?")
_LINKS = (", and", ", but", ", because", ";", ", so", " while", ", or", " and then", ", although")
_ONES = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_TITLES = ("dr.", "mr.", "mrs.", "ms.", "prof.", "st.", "gen.", "lt.", "capt.", "sgt.")
_ABBREVIATIONS = ("e.g.", "i.e.", "u.s.", "u.k.", "etc.", "vs.")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LEADS = ("", "we need ", "there were ", "she bought ", "choose from ")
_ASK = (
    "what is {n}?", "where is the {n}?", "who wants {n}?", "how many {n} are there?", "can you {v} the {n}?",
    "do you {v} {n}?", "would you like to {v} the {n}, or the {m}?", "why did they {v} the {n}?", "is it {a}?",
    "did you {v} it yesterday?", "which {n} do you mean?", "could you please {v} the {a} {n} again?",
    "have you seen the {a} {n} that we {v}?", "are you sure?", "how are you today?", "what time is it?",
)  # fmt: skip
SHARES = {
    "example": 0.42,
    "short": 0.14,
    "clauses": 0.16,
    "list": 0.06,
    "numbers": 0.06,
    "question": 0.06,
    "inner": 0.1,
}


def fetch_wordnet(folder: Path) -> Path:
    """WordNet 3.0 from Debian's package wordnet-base, unpacked into `folder` without installing it."""
    there = folder / "usr/share/wordnet"
    if not there.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", "wordnet-base"], cwd=folder, check=True)
        package = next(folder.glob("wordnet-base*.deb"))
        subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=folder, check=True)
    return there


def examples(wordnet: Path) -> list[str]:
    """Example sentences of 2 to 28 plain words, each once, in order."""
    found = set()
    for path in sorted(wordnet.glob("data.*")):
        for quoted in re.findall(r'"([^"]*)"', path.read_text(encoding="latin-1")):
            words = quoted.lower().split()
            if 2 <= len(words) <= 28 and all(_WORD.fullmatch(word) for word in words):
                text = " ".join(words)
                found.add(text if text[-1] in ".?!" else text.rstrip(",;") + ".")
    return sorted(found)


def lemmas(wordnet: Path, part: str) -> list[str]:
    """The words of a part of speech that have two senses or more."""
    lines = (wordnet / f"index.{part}").read_text(encoding="latin-1").splitlines()
    rows = (line.split() for line in lines if not line.startswith(" "))
    return [row[0] for row in rows if re.fullmatch("[a-z]{3,12}", row[0]) and int(row[2]) >= 2]


def number(draw: random.Random, below: int = 10_000) -> str:
    """A number in words, small ones more often than large ones."""
    value = draw.randrange(1, draw.choice((20, 100, 1000, below)))
    words = []
    if value >= 1000:
        words += [_ONES[value // 1000 - 1], "thousand"] if value < 20_000 else []
        value %= 1000
    if value >= 100:
        words += [_ONES[value // 100 - 1], "hundred"]
        value %= 100
    if value >= 20:
        words.append(_TENS[value // 10 - 2])
        value %= 10
    return " ".join([*words, _ONES[value - 1]] if value else words)


class Writer:
    """Makes texts up. held_back: of the examples that training never uses, and of no others."""

    def __init__(self, wordnet: Path, seed: int, *, held_back: bool) -> None:
        found = examples(wordnet)
        random.Random(1).shuffle(found)
        self._examples = found[-_HELD_BACK:] if held_back else found[:-_HELD_BACK]
        self._nouns, self._verbs, self._adjectives = (lemmas(wordnet, part) for part in ("noun", "verb", "adj"))
        seen = {word.strip(",.?!;") for text in self._examples for word in text.split()}
        self._common = sorted(word for word in seen if "'" not in word)
        self._draw = random.Random(seed)

    def write(self, count: int, first: int) -> list[tuple[str, str]]:
        """(kind, text), the kinds in the shares of SHARES; the examples from number `first` on."""
        kinds: dict[str, Callable[[int], str]] = {
            "example": self.example, "short": lambda _: self.short(), "clauses": self.clauses,
            "list": lambda _: self.listed(), "numbers": lambda _: self.numbers(),
            "question": lambda _: self.question(), "inner": self.inner_stops,
        }  # fmt: skip
        return [(kind, kinds[kind](first + i)) for kind, share in SHARES.items() for i in range(int(share * count))]

    def example(self, index: int) -> str:
        return self._examples[index % len(self._examples)]

    def short(self) -> str:
        words = [self._any_word() for _ in range(self._draw.choice((1, 1, 1, 2, 2, 3, 4)))]
        return " ".join(words) + self._draw.choice("....?!")

    def clauses(self, index: int) -> str:
        """Two to five examples as one long sentence."""
        target, text, step = self._draw.randint(14, 56), self.example(index).rstrip(".?!"), 1
        while len(text.split()) < target - 5:
            text += self._draw.choice(_LINKS) + " " + self.example(index + 7919 * step).rstrip(".?!")
            step += 1
        return " ".join(text.split()[:58]).rstrip(",;") + "."

    def listed(self) -> str:
        items = [self._any_word() if self._draw.random() < 0.7 else self._thing() for _ in range(self._many(3, 14))]
        return (
            self._draw.choice(_LEADS)
            + ", ".join(items[:-1])
            + self._draw.choice((", and ", " and ", ", or "))
            + (items[-1] + ".")
        )

    def numbers(self) -> str:
        draw = self._draw
        made: tuple[Callable[[], str], ...] = (
            lambda: f"that will be {number(draw)} dollars and {number(draw, 100)} cents.",
            lambda: f"your number is {', '.join(self._digits() for _ in range(self._many(2, 5)))}.",
            lambda: f"it happened on {draw.choice(_DAYS)}, {self._date()}.",
            lambda: f"there are {self._counted()} and {self._counted()} in {number(draw, 100)} places.",
            lambda: f"{number(draw)} plus {number(draw)} is {number(draw)}.",
            lambda: f"count with me: {', '.join(_ONES[: self._many(3, 19)])}.",
            lambda: f"spell it {' '.join(draw.choice(_LETTERS) for _ in range(self._many(2, 8)))}.",
        )
        return draw.choice(made)()

    def question(self) -> str:
        draw = self._draw
        words = {"n": draw.choice(self._nouns), "m": draw.choice(self._nouns)}
        return draw.choice(_ASK).format(**words, v=draw.choice(self._verbs), a=draw.choice(self._adjectives))

    def inner_stops(self, index: int) -> str:
        """An example with an abbreviation or dots at a random place, or two examples around one."""
        words, rest = (self.example(at).rstrip(".?!").split()[:24] for at in (index, index + 104_729))
        said, more = " ".join(words), " ".join(rest)
        made: tuple[Callable[[], str], ...] = (
            lambda: self._abbreviated(words, rest),
            lambda: f"{said} at {self._hour()} {self._link()} {more}.",
            lambda: f"{self._title()} {self._noun()} and {self._title()} {self._noun()} said {said}.",
            lambda: f"{said}... {more}.",
            lambda: f"{self._title()} {self._initials(self._many(1, 2))} {self._noun()} {said}.",
            lambda: self._broken(words),
        )  # fmt: skip
        return self._draw.choice(made)()

    def _abbreviated(self, words: list[str], rest: list[str]) -> str:
        put = self._draw.choice((*_ABBREVIATIONS, self._initials(2), self._initials(3)))
        at = self._draw.randint(1, len(words))
        tail = self._draw.choice(([], rest))
        end = self._draw.choice((".", "." if put[-1] != "." else " now."))
        return " ".join([*words[:at], put, *words[at:], *tail]) + end

    def _broken(self, words: list[str]) -> str:
        at = self._draw.randint(1, len(words))
        return (
            " ".join(words[:at]) + "... " + " ".join(words[at:] or ["well"]) + self._draw.choice(("...", ".", "?", "!"))
        )

    def _any_word(self) -> str:
        kind = self._draw.random()
        if kind < 0.6:
            return self._draw.choice(self._common)
        return self._draw.choice(self._nouns if kind < 0.8 else self._verbs if kind < 0.9 else self._adjectives)

    def _thing(self) -> str:
        return f"{self._draw.choice(self._adjectives)} {self._noun()}"

    def _noun(self) -> str:
        return self._draw.choice(self._nouns)

    def _title(self) -> str:
        return self._draw.choice(_TITLES)

    def _hour(self) -> str:
        return f"{self._draw.choice(_ONES[:12])} {self._draw.choice(('a.m.', 'p.m.'))}"

    def _link(self) -> str:
        return self._draw.choice(("and", "because", "on " + self._draw.choice(_DAYS) + ", and"))

    def _many(self, least: int, most: int) -> int:
        return self._draw.randint(least, most)

    def _initials(self, count: int) -> str:
        return "".join(self._draw.choice(_LETTERS) + "." for _ in range(count))

    def _digits(self) -> str:
        return " ".join(self._draw.choice([*_ONES[:9], "zero"]) for _ in range(3))

    def _date(self) -> str:
        year = f"nineteen {self._draw.choice(_TENS)} {self._draw.choice(_ONES[:9])}"
        return f"{self._draw.choice(_MONTHS)} {number(self._draw, 31)}, {year}"

    def _counted(self) -> str:
        return f"{number(self._draw)} {self._noun()}"
