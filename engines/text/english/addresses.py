"""E-mail and web addresses, file names and paths, versions and names of code."""

from __future__ import annotations

import re

from engines.text.english.numbers import cardinal, spelled
from engines.text.english.rule import INNER_STOP, Rule, rule, said, words_of

_MAX_PATH_CHARS = 40  # a longer one is not worth hearing: the name of the site is
_DOMAINS = (
    "com|org|net|edu|gov|io|ai|dev|app|co|uk|us|de|fr|eu|info|me|tv|ca|au|in|jp|nl|se|no|ch|at|biz|xyz|tech|cloud|"
    "online|site|blog|store|be|es|it|pl|ru|cn|nz|ie|ly|gg|fm|sh|so"
)
# Read as words; other endings and domains of up to three letters are spelled.
_WORDS = frozenset(
    words_of(
        "com co org net gov info biz app dev site blog store cloud online tech yaml toml json conf java lock log bin "
        "bat zip in me it so at no be"
    )
)
_EXTENSIONS = (
    "py|js|ts|jsx|tsx|md|txt|pdf|csv|json|yaml|yml|toml|html|css|xml|sh|rs|go|rb|java|cpp|exe|zip|gz|tar|png|jpg|jpeg|"
    "gif|svg|mp3|mp4|wav|docx|doc|xlsx|xls|pptx|log|ini|cfg|conf|sql|ipynb|lock|bat|env|flac|ogg|webm|proto"
)
_MARKS = {
    "/": "slash",
    "-": "dash",
    "_": "underscore",
    ".": "dot",
    "?": "question mark",
    "=": "equals",
    "&": "and",
    "#": "hash",
    "%": "percent",
    "~": "tilde",
    "+": "plus",
    ":": "colon",
    "@": "at",
    "\\": "backslash",
}
_FILE_END = re.compile(rf"\.(?:{_EXTENSIONS})\Z")
_PART = re.compile(r"[A-Za-z]+|\d+|.")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+"
_PATH = r"(?:/[\w./~%@+:-]*(?:\?[\w.=&%+-]*)?(?:\#[\w-]*)?)?"


def _letters(word: str) -> str:
    return " ".join(cardinal(part) if part.isdecimal() else part.upper() for part in re.findall(r"\d+|\D", word))


def _ending(word: str) -> str:
    if word.lower() in _WORDS or len(word) > 4:
        return _with_numbers(word)
    return _letters(word)


def words_of_address(text: str) -> str:
    """Returns every part and every mark between them: "a dot b at example dot com"."""
    parts = [part for part in _PART.findall(text) if not part.isspace()]
    words = []
    for at, part in enumerate(parts):
        if part.isdecimal():
            words.append(spelled(part) if len(part) > 2 or part.startswith("0") else cardinal(part))
        elif part in _MARKS:
            words.append(_MARKS[part])
        elif part.isalpha():
            after_dot = at > 0 and parts[at - 1] == "."
            last = at + 1 == len(parts) or parts[at + 1] in "/?:"
            short = len(part) <= 3 and after_dot and last
            spell = (
                part.lower() == "www" or (short and part.lower() not in _WORDS) or (part.isupper() and len(part) < 4)
            )
            words.append(_letters(part) if spell else part)
    return " ".join(words)


def _web(match: re.Match[str]) -> str:
    host, path = match["host"], match["path"] or ""
    while path and path[-1] in "/.":
        path = path[:-1]
    return words_of_address(host + path if len(path) <= _MAX_PATH_CHARS else host)


def _web_or_file(match: re.Match[str]) -> str | None:
    return None if _FILE_END.search(match[0]) and not match["path"] else _web(match)


def _every_part(match: re.Match[str]) -> str:
    return words_of_address(match[0])


def _dotted_number(match: re.Match[str]) -> str:
    lead = "version " if match["lead"] else ""
    return lead + " point ".join(cardinal(part) for part in match["number"].split("."))


def _version(match: re.Match[str]) -> str:
    kind, number = match["kind"] or "", match["candidate"] or ""
    kind = {"": "", "rc": " R C", "a": " alpha", "b": " beta"}.get(kind.lower(), f" {kind}")
    return _dotted_number(match) + kind + (f" {cardinal(number)}" if number else "")


def _ip(match: re.Match[str]) -> str:
    port = f" port {spelled(match['port'])}" if match["port"] else ""
    mask = f" slash {cardinal(match['mask'])}" if match["mask"] else ""
    return " dot ".join(spelled(part) for part in match["host"].split(".")) + port + mask


def _windows_path(match: re.Match[str]) -> str:
    drive, *parts = match[0].split("\\")
    names = [_name(part) if not _FILE_END.search(part) else words_of_address(part) for part in parts if part]
    return f"{drive[0].upper()} colon " + " ".join(f"backslash {name}" for name in names)


def _file(match: re.Match[str]) -> str:
    return f"{_name(match['name'])} dot {_ending(match['ending'])}"


def _path(match: re.Match[str]) -> str:
    path = match[0]
    parts = [part for part in path.split("/") if part]
    words = []
    for part in parts:
        if not part.strip("."):
            words.append(" ".join("dot" for _ in part))
            continue
        stem, dot, ending = part.rpartition(".")
        words.append(f"{_name(stem)} dot {_ending(ending)}" if dot and stem else _name(part.lstrip(".")))
    lead = "slash " if path.startswith("/") else ""
    return lead + " slash ".join(words)


def _name(name: str) -> str:
    """Words of a name as programs have them: snake_case, camelCase, kebab-case."""
    name = re.sub(r"[_.-]+", " ", name).strip()
    words = [_CAMEL.sub(" ", word) if not word.isupper() else word.lower() for word in name.split()]
    return " ".join("I D" if word.lower() == "id" else _with_numbers(word) for word in words)


def _with_numbers(word: str) -> str:
    return " ".join(cardinal(part) if part.isdecimal() else part for part in _PART.findall(word))


def _framework(match: re.Match[str]) -> str:
    return f"{match['name']} {_letters(match['ending'])}"


_VERSION = r"(?P<number>\d+(?:\.\d+){2,})"
RULES: tuple[Rule, ...] = (
    rule(rf"(?<![\w.@])[\w][\w.+-]*@{_HOST}[A-Za-z]{{2,}}\b", _every_part, needs="@"),
    rule(
        rf"<?\b(?:https?|wss?|ftps?|sftp|ssh|git)://(?P<host>[\w.-]+(?::\d+)?)(?P<path>{_PATH})>?(?<![.,])",
        _web,
        needs=":",
        flags=re.IGNORECASE,
    ),
    rule(
        r"(?<![\w.])(?P<host>\d{1,3}(?:\.\d{1,3}){3})(?![\w.]\d)(?::(?P<port>\d{2,5})(?!\d)|/(?P<mask>\d{1,2})(?!\d))?",
        _ip,
        needs=INNER_STOP,
        with_digit=True,
    ),
    rule(
        r"(?<=\blocalhost):(?P<port>\d{2,5})(?!\d)",
        lambda match: f" port {spelled(match['port'])}",
        needs=":",
        with_digit=True,
    ),
    rule(r"(?<!\w)[A-Za-z]:\\(?:[\w.-]+\\)*[\w.-]*\w", _windows_path, needs="\\"),
    rule(
        rf"(?<![\w.@/])(?P<host>www\.{_HOST}[A-Za-z]{{2,}}|{_HOST}(?:{_DOMAINS}))(?P<path>{_PATH})(?![\w@-])(?<![.,])",
        _web_or_file,
        needs=INNER_STOP,
    ),
    rule(
        rf"(?<![\w.])(?P<lead>[vV](?=\d))?{_VERSION}"
        r"(?:[-.]?(?P<kind>rc|alpha|beta|a|b|dev|post|preview|pre|nightly)(?:[.-]?(?P<candidate>\d+))?)?(?!\w)",
        _version,
        needs=INNER_STOP,
        with_digit=True,
    ),
    rule(
        r"(?<![\w.])(?P<lead>[vV])(?P<number>\d+(?:\.\d+)?)(?![\w]|\.\d)", _dotted_number, needs="vV", with_digit=True
    ),
    rule(
        r"(?:(?<=\bPython )|(?<=[vV]ersion ))(?P<lead>)(?P<number>\d+\.\d+)(?!\w)",
        _dotted_number,
        needs=INNER_STOP,
        with_digit=True,
    ),
    rule(r"(?<![\w.])(?P<name>Node|Vue|Next|Nuxt|Three|React|Express)\.(?P<ending>js)\b", _framework, needs=INNER_STOP),
    rule(rf"(?<![\w/.@])(?:[\w-]+/)+[\w-]*\.?(?:{_EXTENSIONS})\b(?!\.\w)", _path, needs="/"),
    rule(rf"(?<![\w/.@])(?:\.{{1,2}}/)+(?:[\w-]+/)*[\w-]*\.?(?:{_EXTENSIONS})\b(?!\.\w)", _path, needs="/"),
    rule(r"(?<![\w/.<])/(?:[\w.-]+/)+[\w.-]*\w|(?<![\w/.])/(?:etc|usr|var|home|tmp|bin|opt)\b", _path, needs="/"),
    rule(
        rf"(?<![\w/.@])(?P<name>[\w-]+(?:\.[A-Za-z][\w-]*)*)\.(?P<ending>{_EXTENSIONS})\b(?!\.\w)",
        _file,
        needs=INNER_STOP,
    ),
    rule(r"(?<!\w)[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+(?!\w)", lambda match: _name(match[0]), needs="_"),
    rule(r"(?<=\s)-(?P<flag>[A-Za-z]|rf)(?=[.,;)]?(?:\s|\Z))", lambda match: f"dash {match['flag']}", needs="-"),
    rule(r"(?<![\w-])--(?P<name>[a-z][\w-]*)", lambda match: f"dash dash {_name(match['name'])}", needs="-"),
    rule(r"(?<!\w)\.NET\b", said("dot net"), needs=INNER_STOP),
)
