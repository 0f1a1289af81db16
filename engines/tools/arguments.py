"""Values of the command line, refused with a sentence that says what is allowed."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """A type of argparse: whole numbers from `least` on."""

    def parse(text: str) -> int:
        with contextlib.suppress(ValueError):
            if (value := int(text)) >= least:
                return value
        raise argparse.ArgumentTypeError(f"it is {text!r}; it must be a whole number of at least {least}")

    return parse


def not_negative(text: str) -> float:
    """A type of argparse: finite numbers from 0 on."""
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"it is {text!r}; it must be a number of at least 0")


def above_0(text: str) -> float:
    """A type of argparse: finite numbers above 0."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"it is {text!r}; it must be a number above 0")


def worded(parse: Callable[[str], str]) -> Callable[[str], str]:
    """`parse` as a type of argparse, which hides the words of a ValueError."""

    def parsed(text: str) -> str:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed
