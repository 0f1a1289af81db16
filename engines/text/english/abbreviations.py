"""Abbreviations, acronyms and Roman numerals."""

from __future__ import annotations

import re

from engines.text.english.numbers import cardinal, ordinal, roman, spelled, year
from engines.text.english.rule import INNER_STOP, Rule, rule, said, words_of

_TITLES = {
    "Dr": "Doctor",
    "Mr": "Mister",
    "Mrs": "Missus",
    "Ms": "Miz",
    "Prof": "Professor",
    "Rev": "Reverend",
    "Gen": "General",
    "Capt": "Captain",
    "Lt": "Lieutenant",
    "Col": "Colonel",
    "Maj": "Major",
    "Adm": "Admiral",
    "Hon": "Honorable",
    "Sgt": "Sergeant",
    "Gov": "Governor",
    "Sen": "Senator",
    "Mt": "Mount",
    "Ft": "Fort",
}
_AFTER_A_NAME = {
    "Jr": "Junior",
    "Sr": "Senior",
    "Inc": "Incorporated",
    "Ltd": "Limited",
    "Corp": "Corporation",
    "Co": "Company",
    "St": "Street",
    "Ave": "Avenue",
    "Blvd": "Boulevard",
    "Rd": "Road",
}
_PHRASES = {
    "e.g.": "for example",
    "eg.": "for example",
    "E.g.": "For example",
    "I.e.": "That is",
    "i.e.": "that is",
    "etc.": "et cetera",
    "incl.": "including",
    "tsp": "teaspoon",
    "tsp.": "teaspoon",
    "tbsp.": "tablespoon",
    "PhDs": "P H D's",
    "tbsp": "tablespoon",
    "WWI": "World War One",
    "WWII": "World War Two",
    "pts": "points",
    "tok/s": "tokens per second",
    "vs.": "versus",
    "vs": "versus",
    "approx.": "approximately",
    "a.k.a.": "also known as",
    "et al.": "and others",
    "cf.": "compare",
    "ca.": "around",
    "w/o": "without",
    "w/": "with",
    "and/or": "and or",
    "he/she": "he or she",
    "she/he": "she or he",
    "his/her": "his or her",
    "him/her": "him or her",
    "s/he": "she or he",
    "P.S.": "P S",
    "Ph.D.": "P H D",
    "PhD": "P H D",
    "BSc": "B S C",
    "MSc": "M S C",
    "B2B": "B to B",
    "B2C": "B to C",
    "P2P": "P to P",
    "WiFi": "wifi",
    "Wi-Fi": "wifi",
    "GitHub": "git hub",
    "JSON": "Jason",
    "PostgreSQL": "postgress Q L",
    "MySQL": "my S Q L",
    "NoSQL": "no S Q L",
    "iOS": "i O S",
    "macOS": "mac O S",
    "OAuth": "O auth",
    "LaTeX": "lah tech",
    "max.": "maximum",
    "avg.": "average",
    "yrs": "years",
    "Tel.": "telephone",
    "tel.": "telephone",
    "YoY": "year over year",
    "QoQ": "quarter over quarter",
    "MoM": "month over month",
    "TL;DR": "T L D R",
    "A/B": "A B",
    "N/A": "not applicable",
    "n/a": "not applicable",
}
_NUMBERED = {
    "No.": "number",
    "Nos.": "numbers",
    "Fig.": "Figure",
    "Figs.": "Figures",
    "Eq.": "Equation",
    "Sec.": "Section",
    "Ch.": "Chapter",
    "Vol.": "Volume",
    "pp.": "pages",
    "p.": "page",
    "Apt.": "Apartment",
    "ext.": "extension",
    "Ext.": "Extension",
    "vol.": "volume",
    "bldg.": "building",
    "op.": "opus",
    "no.": "number",
    "fig.": "figure",
    "ch.": "chapter",
    "sec.": "section",
    "Rm.": "Room",
}
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
        "SIX SIT SON TEN THE TOO TOP TRY TWO USE VIA WAR WAS WAY WHO WHY WIN WON WOW YES YET YOU"
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
_LINES = {
    "480": "four eighty",
    "720": "seven twenty",
    "1080": "ten eighty",
    "1440": "fourteen forty",
    "2160": "twenty one sixty",
}
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_QUOTES = " \"'”’)"


def spelled_letters(letters: str) -> str:
    """Returns "F B I" of "FBI"; digits become words."""
    return " ".join(cardinal(part) if part.isdecimal() else part for part in re.findall(r"[A-Za-z]|\d+", letters))


def _is_last(match: re.Match[str]) -> bool:
    return not match.string[match.end() :].strip(_QUOTES)


def _phrase(match: re.Match[str]) -> str:
    return _PHRASES[match[0]] + ("." if match[0].endswith(".") and _is_last(match) else "")


def _title(match: re.Match[str]) -> str:
    return _TITLES[match["title"]]


def _after_a_name(match: re.Match[str]) -> str:
    stop = "." if match["dot"] and _is_last(match) else ""
    return _AFTER_A_NAME[match["name"]] + stop


def _dotted(match: re.Match[str]) -> str:
    letters = " ".join(match[0].replace(".", "").upper())
    return letters + ("." if match[0].endswith(".") and _is_last(match) else "")


def _acronym(match: re.Match[str]) -> str | None:
    letters, plural = match["letters"], match["plural"] or ""
    if not _is_spelled(letters, match.string):
        return None
    return spelled_letters(letters) + ("'s" if plural else "")


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


def _formula(match: re.Match[str]) -> str | None:
    """H₂O; None without a number."""
    parts = re.findall(r"[A-Za-z]|[₀-₉]+", match["formula"])
    if not any("₀" <= part <= "₉" for part in parts):
        return None
    return " ".join(cardinal(part.translate(_LOWERED)) if "₀" <= part <= "₉" else part.upper() for part in parts)


def _numeral(match: re.Match[str]) -> str | None:
    value = roman(match["claim"])
    if value is None:
        return None
    name = match["name"]
    if name in _ORDINAL_NAMES:
        return f"the {ordinal(str(value)).title()}"
    return cardinal(str(value)).title()


def _numbered(match: re.Match[str]) -> str:
    return _NUMBERED[match["word"]] + (" " if match.string[match.end()].isdecimal() else "")


def _part(match: re.Match[str]) -> str | None:
    value = roman(match["claim"])
    return None if value is None else cardinal(str(value)).title()


_PHRASE = "|".join(re.escape(phrase) for phrase in sorted(_PHRASES, key=len, reverse=True))
_NUMBERED_WORDS = "|".join(re.escape(word) for word in _NUMBERED)
PHRASES: tuple[Rule, ...] = (rule(rf"(?<![\w/.])(?:{_PHRASE})(?![\w/])", _phrase, needs=""),)
RULES: tuple[Rule, ...] = (
    # Roman numerals: the name before the numeral is not claimed
    rule(r"(?<!\w)(?P<name>[A-Z][a-z]+)\s(?P<claim>[IVX]{2,})(?![\w'’])", _numeral, needs="IVX"),
    rule(
        r"\b(?:King|Queen|Pope|Emperor|Empress|Tsar|Czar|Kaiser)\s(?P<name>[A-Z][a-z]+)\s(?P<claim>[IVX]+)(?![\w'’])",
        _numeral,
        needs="IVX",
    ),
    rule(rf"\b(?:{_PARTS})\s(?P<claim>[VX]|[IVX]{(2,)}|(?<=World War )I|I(?!\s[a-z]))(?![\w'’])", _part, needs="IVX"),
    rule(r"(?<=Super Bowl )(?P<claim>[IVXLC]+)\b", _part, needs="IVXLC"),
    rule(
        r"(?<!\w)(?P<number>[48])K(?=\s(?:at|TV|[vV]ideo|[dD]isplay|[mM]onitor|[sS]creen|[rR]esolution|UHD|[cC]amera)\b)"
        r"|(?<=\bin )(?P<also>[48])K(?!\w)",
        lambda match: f"{cardinal(match['number'] or match['also'])} K",
        needs="K",
    ),
    rule(rf"(?<!\w)(?P<lines>{'|'.join(_LINES)})(?P<scan>[pi])(?!\w)", lambda m: f"{_LINES[m['lines']]} {m['scan']}"),
    # abbreviations
    rule(rf"(?<!\w)(?P<word>{_NUMBERED_WORDS})(?=\s?\d)", _numbered),
    rule(rf"(?<!\w)(?P<title>{'|'.join(_TITLES)})\.(?=\s(?:[A-Z]|and\s|&\s))", _title, needs=INNER_STOP),
    rule(r"(?<!\w)(?<![A-Za-z] )St\.(?=\s[A-Z])", said("Saint"), needs=INNER_STOP),
    rule(
        rf"(?<=[\w,] )(?P<name>{'|'.join(_AFTER_A_NAME)})(?P<dot>\.)"
        r"(?=\s[a-z]|\s(?:[NS][EW]?|[EW])\b|,|\s*\Z|[\"'”’)])",
        _after_a_name,
        needs=".",
    ),
    rule(r"(?<=[a-z] )(?P<name>St|Ave|Blvd|Rd)(?P<dot>)(?=,|\s*\Z)", _after_a_name, needs="SABR"),
    # acronyms
    rule(r"(?<!\w)(?P<formula>(?:[A-Z][a-z]?[₀-₉]*)+)(?!\w)", _formula, needs="₀₁₂₃₄₅₆₇₈₉"),
    rule(r"(?<![\w-])(?P<letters>[A-Z]{2,6})(?P<parts>(?:-\d{2,}){2,})(?![\w-])", _numbered_code, needs="-"),
    rule(r"(?<=\b[Tt]he )US(?![\w$&])", lambda match: None if _is_shouted(match.string) else "U S", needs="U"),
    rule(r"(?<![\w.])(?:[A-Za-z]\.){2,}(?!\w)", _dotted, needs=INNER_STOP),
    rule(
        r"(?<![\w'’])(?P<letters>[A-Z]{1,6})-?(?P<number>\d{1,4})(?P<rest>[A-Za-z])?(?![\w])(?!\.\d)",
        _with_number,
    ),
    rule(r"(?<![\w'’&])(?P<letters>[A-Z]{2,6})(?P<plural>s|'s|’s)?(?![\w&])(?!\.\w)", _acronym, needs=""),
)
