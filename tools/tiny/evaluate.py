"""Scores T3 on texts that it never saw, by their number of text tokens.

whole: it stopped, and nowhere three phones in a row are missing or added. Usage: python -m tools.tiny.evaluate RUN
[--count N] [--greedy] [--buckets 1-5,inner]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tools.tiny import codes, dataset
from tools.tiny.compose import Composer, Text, usual_sounds
from tools.tiny.dataset import Sentence
from tools.tiny.engine import Sampling
from tools.tiny.nets import Run
from tools.tiny.speak_t3 import Drawn, draw

BUCKETS = ("1-5", "6-15", "16-30", "31-45", "46-60", "inner")
_RUN = 3  # phones in a row that may not be missing or added
_AT_ONCE = 50


@dataclass(frozen=True)
class Score:
    phones: int
    edits: int
    dropped: bool
    added: bool
    stopped: bool
    ratio: float  # of the duration to the teacher's

    @property
    def whole(self) -> bool:
        return self.stopped and not self.dropped and not self.added


def phones_of(drawn: Drawn) -> list[int]:
    """The phones that begin, pauses left out."""
    phone, _, begins = codes.meaning(drawn.group, drawn.index)
    return [int(p) for p in phone[begins] if p]


def alignment(a: list[int], b: list[int]) -> tuple[int, int, int]:
    """Edits from a to b, and the longest runs of deletions and of insertions."""
    table = _edits(a, b)
    i, j, gone, more, most_gone, most_more = len(a), len(b), 0, 0, 0, 0
    while i or j:
        if i and j and table[i, j] == table[i - 1, j - 1] + (a[i - 1] != b[j - 1]):
            i, j, gone, more = i - 1, j - 1, 0, 0
        elif i and table[i, j] == table[i - 1, j] + 1:
            i, gone = i - 1, gone + 1
        else:
            j, more = j - 1, more + 1
        most_gone, most_more = max(most_gone, gone), max(most_more, more)
    return int(table[-1, -1]), most_gone, most_more


def _edits(a: list[int], b: list[int]) -> codes.Ints:
    """(len(a) + 1, len(b) + 1): edits between all beginnings."""
    across = np.arange(len(b) + 1)
    table = np.zeros((len(a) + 1, len(b) + 1), np.int64)
    table[0], table[:, 0] = across, np.arange(len(a) + 1)
    right = np.array(b)
    for i in range(1, len(a) + 1):
        best = np.minimum(table[i - 1, 1:] + 1, table[i - 1, :-1] + (right != a[i - 1]))
        table[i] = np.minimum.accumulate(np.concatenate([[i], best]) - across) + across
    return table


def score(text: Text, drawn: Drawn) -> Score:
    wanted = phones_of(Drawn(*codes.split(text.rows(0)), True))
    edits, gone, more = alignment(wanted, phones_of(drawn))
    ratio = len(drawn.group) / len(text.spoken)
    return Score(len(wanted), edits, gone >= _RUN, more >= _RUN, drawn.stopped, ratio)


def texts_of(composer: Composer, sentences: list[Sentence], bucket: str, count: int) -> list[Text]:
    """So many texts of a range of tokens, or sentences with stops inside."""
    chance = np.random.default_rng(7)
    if bucket == "inner":
        chosen = [one for one in sentences if one.kind == "inner"]
        return [composer.joined(chance, [chosen[i % len(chosen)]], clean=True) for i in range(count)]
    low, high = map(int, bucket.split("-"))
    found: list[Text] = []
    while len(found) < count:
        one = composer.text(chance, int(chance.integers(max(2, low), high + 1)), clean=True)
        found += [one] * (low <= len(one.names) <= high)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--prompt", type=int, default=25, help="codes in front of the text")
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--buckets", default=",".join(BUCKETS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    run = Run(given.run)
    heard = dataset.sentences(given.run / "data", "eval")
    composer = Composer(heard, usual_sounds(run.sentences))
    net, sampling = run.trained("t3"), Sampling(temperature=0.0 if given.greedy else 0.8, seed=5)
    for bucket in given.buckets.split(","):
        begun_s = time.monotonic()
        texts, scores = texts_of(composer, heard, bucket, given.count), []
        for first in range(0, len(texts), _AT_ONCE):
            some = texts[first : first + _AT_ONCE]
            chance = np.random.default_rng([first, 3])
            prompts = [composer.prompt(chance, given.prompt) for _ in some]
            most = [int(1.6 * len(text.spoken) + 25) for text in some]
            scores += list(map(score, some, draw(net, some, prompts, most, sampling=sampling)))
        print(_told(bucket, scores), f"({time.monotonic() - begun_s:.0f} s)", flush=True)


def _told(bucket: str, scores: list[Score]) -> str:
    shares = {
        name: np.mean([getattr(one, name) for one in scores]) for name in ("whole", "dropped", "added", "stopped")
    }
    per = sum(one.edits for one in scores) / sum(one.phones for one in scores)
    ratios = np.array([one.ratio for one in scores])
    apart = np.mean((ratios < 0.75) | (ratios > 1.35))
    told = " ".join(f"{name} {value:.3f}" for name, value in shares.items())
    return f"{bucket:6} n {len(scores)} {told} PER {per:.3f} ratio {ratios.mean():.3f} outside {apart:.3f}"


if __name__ == "__main__":
    main()
