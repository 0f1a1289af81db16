"""The codes and names of languages."""

from __future__ import annotations

ENGLISH = "en"
# ISO 639-1 codes, as the multilingual tokenizer has them in brackets, and English names
NAMES = {
    "ar": "Arabic",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "ms": "Malay",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "sv": "Swedish",
    "sw": "Swahili",
    "tr": "Turkish",
    "zh": "Chinese",
}
_OTHER_SCRIPTS = {
    "ar": ("ARABIC",),
    "el": ("GREEK",),
    "he": ("HEBREW",),
    "hi": ("DEVANAGARI",),
    "ja": ("HIRAGANA", "KATAKANA", "CJK"),
    "ko": ("HANGUL",),
    "ru": ("CYRILLIC",),
    "zh": ("CJK", "BOPOMOFO"),
}
_OTHER_CODES = {"nb": "no", "nn": "no", "iw": "he", "cmn": "zh"}  # of the same languages


def primary_code(tag: str) -> str:
    """Returns the language of a BCP 47 tag, e.g. "pt" for "pt-BR" and "pt_br". The tag need not be a valid one."""
    code = tag.replace("_", "-").partition("-")[0].lower()
    return _OTHER_CODES.get(code, code)


def scripts_of(language: str) -> tuple[str, ...]:
    """Returns the scripts that texts of a language are written in, as Unicode's character names begin. Latin is one of
    them everywhere: names and brands are in it."""
    return "LATIN", *_OTHER_SCRIPTS.get(language, ())
