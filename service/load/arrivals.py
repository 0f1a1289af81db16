"""Arrival times and texts of a load; the same seed gives the same load."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

TEXTS = (
    "Yes.",
    "One moment, please.",
    "I have found three trains this evening, and the next one leaves at ten past six.",
    "Good morning, you have reached the clinic. How can I help you today?",
    "Your parcel was handed to the courier at noon; it should be with you before five.",
    "That is not something I can change for you, but I can connect you to a colleague who can.",
    "The table for four is booked for Saturday at half past seven, by the window, as you asked.",
    "Let me repeat that to be sure: the meter reads forty-two thousand and sixteen. Is that right?",
    "There is light rain until three, then it clears up, and tomorrow will be sunny with a cool wind from the north.",
    "Of course. First, unplug the router and wait for ten seconds. Then plug it in again. "
    "After two minutes the lamp should be green; tell me when it is, and we will try the phone.",
)


@dataclass(frozen=True)
class Arrival:
    """A stream that starts `at_s` after the load."""

    at_s: float
    text: str


def poisson(rate_per_s: float, duration_s: float, seed: int, texts: Sequence[str] = TEXTS) -> list[Arrival]:
    """A Poisson process of `rate_per_s`: arrivals that depend neither on each other nor on the server."""
    rng = random.Random(seed)
    arrivals: list[Arrival] = []
    at_s = rng.expovariate(rate_per_s)
    while at_s < duration_s:
        arrivals.append(Arrival(at_s, rng.choice(texts)))
        at_s += rng.expovariate(rate_per_s)
    return arrivals
