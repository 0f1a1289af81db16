"""How English text is read aloud: its numbers, dates, addresses, abbreviations and symbols as words."""

from __future__ import annotations

from engines.text.english import (
    abbreviations,
    acronyms,
    addresses,
    chess,
    codes,
    dates,
    money,
    numerals,
    quantities,
    symbols,
    times,
    years,
)
from engines.text.english.rule import Rule

# Earlier rules win where two match.
RULES: tuple[Rule, ...] = (
    *codes.PHONES,
    *chess.RULES,
    *codes.CODES,
    *quantities.DURATIONS,
    *dates.STAMPS,
    *addresses.RULES,
    *money.RULES,
    *dates.RULES,
    *times.RULES,
    *years.RULES,
    *quantities.UNITS,
    *abbreviations.PHRASES,
    *symbols.RULES,
    *numerals.RULES,
    *acronyms.VIDEO,
    *abbreviations.RULES,
    *acronyms.RULES,
    *quantities.RULES,
)
