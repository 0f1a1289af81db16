"""Acronyms, which are spelled or said as a word, and codes of letters and digits."""

from __future__ import annotations

import re

from engines.text.english.numbers import cardinal, spelled, year
from engines.text.english.rule import INNER_STOP, Rule, is_last, rule, words_of

# Said as words although they have only capitals.
_SAID = frozenset(
    words_of(
        "NASA NATO UNICEF UNESCO OPEC RAM ROM GIF JPEG LASER RADAR SCUBA PIN SIM AIDS COVID ASAP FIFA IKEA NAFTA GUI "
        "LAN WAN FAQ OK OKAY NORAD SWAT POTUS SCOTUS CAPTCHA BASIC ASCII CRUD REST SOAP SAAS PAAS YOLO LOL NIMBY DARPA "
        "LIDAR MIDI BIOS CERN SARS MERS HIPAA OSHA FEMA ERISA LEGO SAT TED CAD CAM DOS WIMP BERT RAG LORA CUDA LLAMA "
        "FICO EBITDA GAAP ICE"
    )
)
# Words of two or three letters that are often written in capitals for emphasis.
_SHORT_WORDS = frozenset(
    words_of(
        "A I AM AN AS AT BE BY DO GO HE HI IF IN IS IT ME MY NO OF OH ON OR SO TO UP US WE YO ALL AND ANY ARE ASK BAD "
        "BAN BIG BUT BUY CAN CAR CUT DAY DID DIE END EAT FAR FEW FOR FUN GET GOD GOT HAD HAS HER HEY HIM HIS HOT HOW "
        "ITS JOB KEY LET LIE LOT LOW MAN MAY MEN NEW NOT NOW OFF OLD ONE OUR OUT OWN PUT RED RUN SAD SAY SEE SET SHE "
        "SIX SIT SON TEN THE TOO TOP TRY TWO USE VIA WAR WAS WAY WHO WHY WIN WON WOW YES YET YOU MAX MIN PRO AIR"
    )
)
_SPELLED = frozenset(
    words_of(
        "AI API APIS UI UX IO IP IT'S IOT IDE URL URI USA UK EU UN AC EV ATM IBM CIA FBI CEO CFO CTO COO HR PR QA AWS "
        "USB ISO IEEE ICU ER OS AMD ASR AGI EDT EST ETA FYI IPO ISP LED OEM OLED POV RPA SEO TBA UFO VIP VPN SDK IRS "
        "HDMI ISBN NCAA ESPN IMDB IETF IQ EPA EKG ECG ICBM AED AUX ROI KPI IELTS UAE NBA UEFA"
    )
)
_VOWEL = re.compile(r"[AEIOUY]")
_LINES = {
    "480": "four eighty",
    "720": "seven twenty",
    "1080": "ten eighty",
    "1440": "fourteen forty",
    "2160": "twenty one sixty",
}
_ELEMENTS = frozenset(
    words_of(
        "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr "
        "Nb Mo Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce W Os Ir Pt Au Hg Tl Pb Bi Rn Ra U Pu"
    )
)
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def _spelled_letters(letters: str) -> str:
    """Returns "F B I" of "FBI"; digits become words."""
    return " ".join(cardinal(part) if part.isdecimal() else part for part in re.findall(r"[A-Za-z]|\d+", letters))


def _dotted(match: re.Match[str]) -> str:
    letters = " ".join(match[0].replace(".", "").upper())
    return letters + ("." if match[0].endswith(".") and is_last(match) else "")


def _acronym(match: re.Match[str]) -> str | None:
    letters, plural = match["letters"], match["plural"] or ""
    if not _is_spelled(letters, match.string):
        return None
    return _spelled_letters(letters) + ("'s" if plural else "")


def _is_spelled(letters: str, text: str) -> bool:
    if letters in _SPELLED or not _VOWEL.search(letters):
        return letters not in _SAID and not _is_shouted(text)
    if letters in _SAID or letters in _SHORT_WORDS or len(letters) > 3:
        return False
    return not _is_shouted(text)


def _is_shouted(text: str) -> bool:
    """Whether a text of several words is all in capitals."""
    words = re.findall(r"[^\W\d_]{2,}", text)
    return len(words) > 2 and all(word.isupper() for word in words)


def _with_number(match: re.Match[str]) -> str | None:
    letters, number = match["letters"], match["number"]
    if letters in ("FY", "CY") and re.fullmatch(r"(?:19|20)\d\d", number):
        return f"{' '.join(letters)} {year(number)}"
    said = letters in _SAID or len(letters) > 4 or (len(letters) == 4 and _VOWEL.search(letters))
    return f"{letters if said else ' '.join(letters)} {cardinal(number)}{' ' + match['rest'] if match['rest'] else ''}"


def _numbered_code(match: re.Match[str]) -> str:
    """INV-2024-0099: a year, and numbers digit by digit."""
    letters = match["letters"] if match["letters"] in _SAID else " ".join(match["letters"])
    parts = match["parts"].strip("-").split("-")
    return " ".join(
        [letters, *(year(part) if re.fullmatch(r"(?:19|20)\d\d", part) else spelled(part) for part in parts)]
    )


def _plain_formula(match: re.Match[str]) -> str | None:
    """Fe2O3: elements, at least two, and their numbers."""
    parts = re.findall(r"[A-Z][a-z]?|\d+", match[0])
    elements = [part for part in parts if not part.isdecimal()]
    if len(elements) < 2 or not _ELEMENTS.issuperset(elements):
        return None
    return " ".join(cardinal(part) if part.isdecimal() else " ".join(part.upper()) for part in parts)


def _formula(match: re.Match[str]) -> str | None:
    """H₂O; None without a number."""
    parts = re.findall(r"[A-Za-z]|[₀-₉]+", match["formula"])
    if not any("₀" <= part <= "₉" for part in parts):
        return None
    return " ".join(cardinal(part.translate(_LOWERED)) if "₀" <= part <= "₉" else part.upper() for part in parts)


VIDEO: tuple[Rule, ...] = (
    rule(
        r"(?<!\w)S(?P<season>\d{1,2})E(?P<episode>\d{1,3})(?!\w)",
        lambda match: f"season {cardinal(match['season'])} episode {cardinal(match['episode'])}",
    ),
    rule(
        r"(?<!\w)(?P<number>[48])K(?=\s(?:at|TV|[vV]ideo|[dD]isplay|[mM]onitor|[sS]creen|[rR]esolution|UHD|[cC]amera)\b)"
        r"|(?<=\bin )(?P<also>[48])K(?!\w)",
        lambda match: f"{cardinal(match['number'] or match['also'])} K",
        needs="K",
    ),
    rule(rf"(?<!\w)(?P<lines>{'|'.join(_LINES)})(?P<scan>[pi])(?!\w)", lambda m: f"{_LINES[m['lines']]} {m['scan']}"),
)
RULES: tuple[Rule, ...] = (
    rule(r"(?<!\w)(?P<formula>(?:[A-Z][a-z]?[₀-₉]*)+)(?!\w)", _formula, needs="₀₁₂₃₄₅₆₇₈₉"),
    rule(
        r"(?<=\w)(?P<index>[₀-₉]+)(?!\w)",
        lambda match: f" {cardinal(match['index'].translate(_LOWERED))}",
        needs="₀₁₂₃₄₅₆₇₈₉",
    ),
    rule(r"(?<![\w-])(?=[A-Za-z]*\d)(?:[A-Z][a-z]?\d{0,2}){2,}(?![\w-])", _plain_formula),
    rule(r"(?<![\w-])(?P<letters>[A-Z]{2,6})(?P<parts>(?:-\d{2,}){2,})(?![\w-])", _numbered_code, needs="-"),
    rule(r"(?<=\b[Tt]he )US(?![\w$&])", lambda match: None if _is_shouted(match.string) else "U S", needs="U"),
    rule(r"(?<![\w.])(?:[A-Za-z]\.){2,}(?!\w)", _dotted, needs=INNER_STOP),
    rule(
        r"(?<![\w'’])(?P<letters>[A-Z]{1,6})-?(?P<number>\d{1,4})(?P<rest>[A-Za-z])?(?![\w])(?!\.\d)",
        _with_number,
    ),
    rule(r"(?<![\w'’&])(?P<letters>[A-Z]{2,6})(?P<plural>s|'s|’s)?(?![\w&])(?!\.\w)", _acronym, needs=""),
)
