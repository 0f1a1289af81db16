"""Roman numerals, after names and after words such as Chapter."""

from __future__ import annotations

import re

from engines.text.english.numbers import cardinal, ordinal, roman
from engines.text.english.rule import Rule, rule, words_of

_ORDINAL_NAMES = frozenset(
    words_of(
        "Henry Elizabeth Louis Charles George Edward William Richard James Paul John Pius Benedict Philip Frederick "
        "Catherine Alexander Nicholas Mary Napoleon Gregory Clement Innocent Leo Urban Peter Ramses Ramesses Ptolemy "
        "Felipe Carl Gustav Christian Margrethe Wilhelm Otto Ferdinand Francis Harald Haakon Ivan Juan Carlos Albert"
    )
)
_PARTS = (
    "Chapter|Part|Book|Act|Scene|Volume|Section|Phase|Type|Stage|Level|Class|Title|Article|World War|War|Appendix|Mark|"
    "Grade|Tier|Schedule|Division|Episode|Unit|Figure|Table"
)


def _numeral(match: re.Match[str]) -> str | None:
    value = roman(match["claim"])
    if value is None:
        return None
    name = match["name"]
    if name in _ORDINAL_NAMES:
        return f"the {ordinal(str(value)).title()}"
    return cardinal(str(value)).title()


def _part(match: re.Match[str]) -> str | None:
    value = roman(match["claim"])
    return None if value is None else cardinal(str(value)).title()


RULES: tuple[Rule, ...] = (
    # the name before the numeral is not claimed
    rule(r"(?<!\w)(?P<name>[A-Z][a-z]+)\s(?P<claim>[IVX]{2,})(?!\w|['’](?!s))", _numeral, needs="IVX"),
    rule(
        r"\b(?:King|Queen|Pope|Emperor|Empress|Tsar|Czar|Kaiser)\s(?P<name>[A-Z][a-z]+)\s(?P<claim>[IVX]+)(?!\w|['’](?!s))",
        _numeral,
        needs="IVX",
    ),
    rule(
        rf"\b(?:{_PARTS}|(?:Vol|Art|Ch|Sec|Pt|Bk)\.)\s"
        r"(?P<claim>[VX]|[IVX]{2,}|(?<=World War )I|I(?!\s[a-z]))(?!\w|['’](?!s))",
        _part,
        needs="IVX",
    ),
    rule(r"(?<=Super Bowl )(?P<claim>[IVXLC]+)\b", _part, needs="IVXLC"),
)
