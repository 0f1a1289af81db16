"""The packages, nets and tables that some languages need, and the error that names one that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

from engines.errors import InvalidInput
from engines.text.languages.codes import NAMES

MISSING = "LANGUAGE_PACKAGE_MISSING"


@dataclass(frozen=True)
class Package:
    """A package of a language: its module, its name, and where the server's operator gets it."""

    module: str
    name: str
    source: str


PACKAGES = {
    "he": Package("dicta_onnx", "dicta-onnx", "pip install --no-deps dicta-onnx==1.0.9"),  # it pins onnxruntime
    "ja": Package("pykakasi", "pykakasi", "mynah-speech-server[lang-ja]"),
    "ru": Package("russian_text_stresser", "russian-text-stresser", "github.com/Vuizur/add-stress-to-epub"),
    "zh": Package("spacy_pkuseg", "spacy-pkuseg", "mynah-speech-server[lang-zh]"),
}


def missing_packages() -> dict[str, str]:
    """Returns the name of the package that is not installed, by the language that needs it."""
    return {language: each.name for language, each in PACKAGES.items() if find_spec(each.module) is None}


def check_packages(language: str) -> None:
    """Raises InvalidInput with reason LANGUAGE_PACKAGE_MISSING if a package that the language needs is not here."""
    if language in missing_packages():
        package = PACKAGES[language]
        raise missing(language, f"the package {package.name}", f"its operator gets it from {package.source}")


@contextmanager
def loading(language: str, what: str, remedy: str) -> Iterator[None]:
    """Raises InvalidInput with reason LANGUAGE_PACKAGE_MISSING for whatever stops `what` from being loaded, such as a
    damaged file or a package that lacks one of its own. `remedy` is a clause."""
    try:
        yield
    except Exception as error:
        raise missing(language, what, f"it cannot be loaded ({type(error).__name__}); {remedy}") from error


def missing(language: str, what: str, remedy: str) -> InvalidInput:
    """The error for a language that lacks something; `remedy` is a clause."""
    allowed = ", ".join(code for code in NAMES if code != language and code not in missing_packages())
    message = f"language is {language}, which needs {what}; this server lacks it, and {remedy}."
    return InvalidInput("language", message, MISSING, value=language, allowed=allowed)
