"""English words of numbers, without commas, hyphens and "and", as T3's training texts have them."""

from __future__ import annotations

from engines.text.english.rule import words_of

_ONES = words_of(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = words_of("zero ten twenty thirty forty fifty sixty seventy eighty ninety")
_SCALES = words_of("thousand million billion trillion quadrillion quintillion")
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_MAX_DIGITS = 3 * (len(_SCALES) + 1)


def cardinal(digits: str) -> str:
    """Returns "one thousand two hundred" of "1200" or "1,200"; numbers that have no name are spelled in digits."""
    plain = digits.replace(",", "").lstrip("0") or "0"
    if len(plain) > _MAX_DIGITS:
        return spelled(plain)
    groups = [plain[max(0, end - 3) : end] for end in range(len(plain), 0, -3)]
    words: list[str] = []
    for place, group in reversed(list(enumerate(groups))):
        if int(group):
            words += (_below_thousand(int(group)), *((_SCALES[place - 1],) if place else ()))
    return " ".join(words) or "zero"


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    words = [_ONES[hundreds], "hundred"] if hundreds else []
    if rest >= 20:
        words.append(_TENS[rest // 10])
        rest %= 10
    return " ".join([*words, *((_ONES[rest],) if rest else ())])


def ordinal(digits: str) -> str:
    """Returns "twenty first" of "21"."""
    return as_ordinal(cardinal(digits))


def as_ordinal(words: str) -> str:
    """Returns the ordinal of a cardinal in words."""
    before, space, last = words.rpartition(" ")
    if last not in _ORDINALS:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
        return before + space + last
    return before + space + _ORDINALS[last]


def spelled(digits: str) -> str:
    """Returns "five five five" of "555"; what is not a digit is left out."""
    return " ".join(_ONES[int(digit)] for digit in digits if digit in "0123456789")


def decimal(number: str) -> str:
    """Returns "three point one four" of "3.14"; also of ".5", and of a number without a point."""
    whole, _, fraction = number.partition(".")
    words = cardinal(whole or "0")
    return f"{words} point {spelled(fraction)}" if fraction else words


def year(digits: str) -> str:
    """Returns "nineteen ninety nine" of "1999"."""
    number = int(digits)
    century, rest = divmod(number, 100)
    if not 1000 <= number <= 9999 or number % 1000 < 10:  # 2000 to 2009
        return cardinal(digits)
    if not rest:
        return f"{cardinal(str(century))} hundred"
    return f"{cardinal(str(century))} {'oh ' if rest < 10 else ''}{cardinal(str(rest))}"


def plural(words: str) -> str:
    """Returns "nineteen nineties" of "nineteen ninety"."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith("x") else "s")


def roman(numeral: str) -> int | None:
    """Returns the value of a Roman numeral in capitals, or None if it is none."""
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
    total = 0
    for at, sign in enumerate(numeral):
        following = values.get(numeral[at + 1 : at + 2], 0)
        total += -values[sign] if values[sign] < following else values[sign]
    return total if total and _as_roman(total) == numeral else None


def _as_roman(number: int) -> str:
    parts = []
    for value, sign in zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"),
        strict=True,
    ):
        parts.append(sign * (number // value))
        number %= value
    return "".join(parts)
