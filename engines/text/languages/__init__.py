"""The languages of Chatterbox Multilingual: how each one's text is written for the tokenizer."""

from __future__ import annotations

from engines.text.languages.codes import ENGLISH, NAMES, primary_code, scripts_of
from engines.text.languages.front_ends import SLOW, load, missing_things, prepare
from engines.text.languages.packages import check_packages, missing_packages

__all__ = [
    "ENGLISH", "NAMES", "SLOW", "check_packages", "load", "missing_packages", "missing_things", "prepare",
    "primary_code", "scripts_of",
]  # fmt: skip
