"""Hebrew: vowels as diacritics, by dicta-onnx and its net."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from engines.text.languages.packages import loading, missing

NET_FILE = "dicta-1.0.onnx"  # in a checkpoint's folder, from github.com/thewh1teagle/dicta-onnx/releases


def with_diacritics(text: str, folder: Path | None) -> str:
    """Returns `text` with the vowels of its words. `folder` is a checkpoint's, which has the net.

    Raises InvalidInput with reason LANGUAGE_PACKAGE_MISSING if it has none.
    """
    path = None if folder is None else folder / NET_FILE
    if path is None or not path.is_file():
        remedy = "its operator puts it into the checkpoint's folder, from the releases of thewh1teagle/dicta-onnx"
        raise missing("he", f"the file {NET_FILE}", remedy)
    with loading("he", f"dicta-onnx and the file {NET_FILE}", "its operator installs both again"):
        dicta = _dicta(path)
    return str(dicta.add_diacritics(text)) if text.strip() else text


@lru_cache(maxsize=1)
def _dicta(path: Path) -> Any:
    from dicta_onnx import Dicta

    return Dicta(str(path))
