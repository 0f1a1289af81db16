"""How English text is read aloud: its numbers, dates, addresses, abbreviations and symbols as words."""

from __future__ import annotations

from engines.text.english import abbreviations, addresses, money, quantities, symbols, times
from engines.text.english.rule import Rule

# Earlier rules win where two match.
RULES: tuple[Rule, ...] = (
    *quantities.PHONES,
    *quantities.CODES,
    *quantities.DURATIONS,
    *times.DATES,
    *addresses.RULES,
    *money.RULES,
    *times.RULES,
    *quantities.UNITS,
    *abbreviations.PHRASES,
    *symbols.RULES,
    *abbreviations.RULES,
    *quantities.RULES,
)
