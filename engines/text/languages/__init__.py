"""The languages of Chatterbox Multilingual: how each one's text is written for the tokenizer."""

from __future__ import annotations

from engines.text.languages.codes import ENGLISH, NAMES, primary_code, scripts_of
from engines.text.languages.front_ends import load, prepare
from engines.text.languages.packages import check_packages, missing_packages

__all__ = ["ENGLISH", "NAMES", "check_packages", "load", "missing_packages", "prepare", "primary_code", "scripts_of"]
