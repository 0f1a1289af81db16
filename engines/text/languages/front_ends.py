"""Text of a language as the multilingual tokenizer was trained on it: upstream's front ends (chatterbox-tts 0.1.7,
models/tokenizers/tokenizer.py).

Upstream speaks a language wrongly and silently when something that it needs is missing. Here that is an error.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from engines.text.languages import chinese, hebrew, japanese, korean, russian
from engines.text.languages.codes import NAMES
from engines.text.languages.packages import PACKAGES, check_packages, missing_packages

# front ends that are nets, dictionaries or statistics; the others take as long as the tokenizer at most
SLOW = frozenset(PACKAGES)


def prepare(text: str, language: str, folder: Path | None = None) -> str:
    """Returns `text` for the multilingual tokenizer, with "[language]" before it: in lower case, decomposed (NFKD), by
    the language's own front end.

    `language` is a code of NAMES, `folder` the checkpoint's, which Chinese and Hebrew need. The first call of a
    language may take seconds: see `load`. Each of `SLOW` is for a thread of its own: see `workers`. Raises InvalidInput
    with reason LANGUAGE_PACKAGE_MISSING if something that the language needs is not here.
    """
    assert language in NAMES, f"{language!r} is no language of the model; the caller checks it"
    check_packages(language)
    text = unicodedata.normalize("NFKD", text.lower())
    match language:
        case "he":
            text = hebrew.with_diacritics(text, folder)
        case "ja":
            text = japanese.as_hiragana(text)
        case "ko":
            text = korean.as_jamo(text)
        case "ru":
            text = russian.with_stress(text)
        case "zh":
            text = chinese.as_cangjie(text, folder)
    return f"[{language}]{text}"


def missing_things(folder: Path | None) -> dict[str, str]:
    """Returns the package, or the file of the checkpoint's folder, that is missing here, by the language that needs it.

    A package comes first where both are missing. What is here may still be damaged, which `load` finds.
    """
    files = {"he": hebrew.NET_FILE, "zh": chinese.TABLE_FILE}
    absent = {code: name for code, name in files.items() if folder is None or not (folder / name).is_file()}
    return absent | missing_packages()


def load(language: str, folder: Path | None = None) -> None:
    """Load what a language needs, so that `prepare` does not wait for it. Slow, for a thread. Raises as `prepare`."""
    prepare("", language, folder)
