"""Money and percentages."""

from __future__ import annotations

import re

from engines.text.english.numbers import cardinal, decimal
from engines.text.english.rule import BEFORE, DASH, INTEGER, NUMBER, Rule, rule

# sign or code: one, several, one hundredth, several hundredths
_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "US$": ("U S dollar", "U S dollars", "cent", "cents"),
    "A$": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "C$": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "NZ$": ("New Zealand dollar", "New Zealand dollars", "cent", "cents"),
    "HK$": ("Hong Kong dollar", "Hong Kong dollars", "cent", "cents"),
    "S$": ("Singapore dollar", "Singapore dollars", "cent", "cents"),
    "R$": ("real", "reais", "centavo", "centavos"),
    "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes"),
    "CNY": ("yuan", "yuan", "fen", "fen"),
    "₩": ("won", "won", "jeon", "jeon"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
    "₺": ("lira", "lira", "kurus", "kurus"),
    "₱": ("peso", "pesos", "centavo", "centavos"),
    "₪": ("shekel", "shekels", "agora", "agorot"),
    "₦": ("naira", "naira", "kobo", "kobo"),
    "₿": ("bitcoin", "bitcoins", "", ""),
}
_CODES = {
    "USD": "US$",
    "AUD": "A$",
    "CAD": "C$",
    "GBP": "£",
    "EUR": "€",
    "JPY": "¥",
    "INR": "₹",
    "NZD": "NZ$",
    "HKD": "HK$",
    "SGD": "S$",
    "BRL": "R$",
    "KRW": "₩",
    "CHF": "CHF",
    "Rs": "₹",
    "Rs.": "₹",
    "CNY": "CNY",
    "AU$": "A$",
    "CA$": "C$",
}
SCALES = {
    "k": "thousand",
    "K": "thousand",
    "m": "million",
    "M": "million",
    "mn": "million",
    "mm": "million",
    "MM": "million",
    "bn": "billion",
    "b": "billion",
    "B": "billion",
    "t": "trillion",
    "T": "trillion",
    "tn": "trillion",
}
_SIGNS = "$£€¥₹₩₽₺₱₪₦₿"
_SIGN = rf"(?P<sign>(?:US|AU?|CA?|NZ|HK|S|R)\$|Rs\.?(?=\s?\d)|[{_SIGNS}])"
_CODE = "|".join(code for code in _CODES if code.isalpha() and code.isupper())
_INDIAN = r"\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d{2})?"  # 1,00,000
_CONTINENTAL = r"(?:\d{1,3}(?:\.\d{3})+|\d+),\d{2}"  # 1.234,50
_AMOUNT = rf"(?:{_INDIAN}|{NUMBER})"
_SCALE = (
    r"(?:\s?(?P<scale>thousand|million|billion|trillion|lakh|crore)s?\b|"
    r"(?:\s(?=[mbt]n\b))?(?P<short>mm|MM|mn|bn|tn|[kKmMbBtT])(?!\w))?"
)
_PER = r"(?:\s?/\s?(?P<per>month|mo|year|yr|night|day|week|wk|hour|hr|h|kg|lb|person|user|seat|GB|unit|mile|km)\b)?"
PER = {"mo": "month", "yr": "year", "wk": "week", "hr": "hour", "h": "hour", "kg": "kilogram", "lb": "pound"} | {
    "GB": "gigabyte",
    "km": "kilometer",
}
# a noun behind makes it an adjective: a $5 bill, a $100 million deal
_ARTICLE = re.compile(r"\b(?:an?|the|this|that|each|every|per)\s\Z", re.IGNORECASE)
_NOUN = re.compile(r"\s[a-z]{3,}")
_NO_NOUN = re.compile(r"\s(?:and|or|but|for|per|each|more|less|than|from|with|when|was|were|will|that|into|over|off)\b")


def words_of_amount(amount: str, sign: str, scale: str = "", *, singular: bool = False) -> str:
    """Returns "five dollars and fifty cents" of "5.50" and "$"."""
    one, many, cent, cents = _CURRENCIES[_CODES.get(sign, sign)]
    whole, _, fraction = amount.replace(",", "").partition(".")
    if scale:
        return f"{decimal(amount)} {scale} {one if singular else many}"
    if len(fraction) not in (0, 2) or (fraction and not cent):
        return f"{decimal(amount)} {many}"
    unit = one if singular or int(whole or 0) == 1 else many
    parts = [] if not int(whole or 0) and int(fraction or 0) else [f"{cardinal(whole or '0')} {unit}"]
    if int(fraction or 0):
        parts.append(f"{cardinal(fraction)} {cent if int(fraction) == 1 else cents}")
    return " and ".join(parts)


def _money(match: re.Match[str]) -> str:
    scale = match["scale"] or SCALES.get(match["short"] or "", "")
    before, after = match.string[: match.start()], match.string[match.end() :]
    adjective = _ARTICLE.search(before) and _NOUN.match(after) and not _NO_NOUN.match(after)
    words = words_of_amount(match["amount"], match["sign"], scale, singular=bool(adjective))
    per = f" per {PER.get(match['per'], match['per'])}" if match["per"] else ""
    return ("minus " if match["minus"] else "") + words + per


def _range(match: re.Match[str]) -> str:
    scale = match["scale"] or SCALES.get(match["short"] or "", "")
    return f"{decimal(match['low'])} to {words_of_amount(match['high'], match['sign'], scale)}"


def _coded(match: re.Match[str]) -> str | None:
    scale = match["scale"] or SCALES.get(match["short"] or "", "")
    return words_of_amount(match["amount"], match["code"], scale)


def _continental(match: re.Match[str]) -> str:
    return words_of_amount(match["amount"].replace(".", "").replace(",", "."), match["sign"])


def _percent(match: re.Match[str]) -> str:
    lead = {"-": "minus ", "−": "minus ", "+": "plus ", "±": "plus or minus "}.get(match["lead"] or "", "")
    low = f"{decimal(match['low'])} to " if match["low"] else ""
    return f"{lead}{low}{decimal(match['high'])} percent"


def _cents(match: re.Match[str]) -> str:
    before, after = match.string[: match.start()], match.string[match.end() :]
    adjective = _ARTICLE.search(before) and _NOUN.match(after) and not _NO_NOUN.match(after)
    return f"{cardinal(match['amount'])} {'cent' if match['amount'] == '1' or adjective else 'cents'}"


_MINUS = r"(?P<minus>(?:(?<=\s)|(?<=\A)|(?<=\())[-−])?"
_END = r"(?![\w])(?!,\d)(?!\.\d)"
RULES: tuple[Rule, ...] = (
    rule(rf"(?<!\w){_SIGN}\s?(?P<amount>{_CONTINENTAL}){_END}", _continental, needs=","),
    rule(rf"(?<![\w.,])(?P<amount>{_CONTINENTAL})\s?(?P<sign>€){_END}", _continental, needs="€"),
    rule(
        rf"(?<!\w){_SIGN}(?P<low>{NUMBER}){DASH}(?P<high>{NUMBER}){_SCALE}{_END}",
        _range,
        needs=_SIGNS + "R",
        with_digit=True,
    ),
    rule(
        rf"{_MINUS}(?<!\w){_SIGN}\s?(?P<amount>{_AMOUNT}){_SCALE}{_PER}{_END}",
        _money,
        needs=_SIGNS + "R",
        with_digit=True,
    ),
    rule(rf"{BEFORE}(?P<amount>{NUMBER}){_SCALE}\s?(?P<code>{_CODE}|[€£¥₹₩]){_END}", _coded),
    rule(rf"(?<!\w)(?P<code>{_CODE})\s?(?P<amount>{NUMBER}){_SCALE}{_END}", _coded),
    rule(rf"{BEFORE}(?P<amount>{INTEGER})\s?¢", _cents, needs="¢", with_digit=True),
    rule(
        rf"(?<![\w.,])(?P<lead>[-−+±])?(?P<low>{NUMBER}(?={DASH}))?(?(low){DASH})(?P<high>{NUMBER})\s?%(?!\w)",
        _percent,
        needs="%",
        with_digit=True,
    ),
)
