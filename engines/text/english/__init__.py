"""How English text is read aloud: its numbers, dates, addresses, abbreviations and symbols as words."""

from __future__ import annotations

from engines.text.english import (
    abbreviations,
    acronyms,
    addresses,
    chess,
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
    *quantities.PHONES,
    *chess.RULES,
    *quantities.CODES,
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
