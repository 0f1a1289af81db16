"""Classifier-free guidance, which some ports of Chatterbox offer and which Turbo and Nano do not have."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from engines.errors import invalid_value

_log = logging.getLogger(__name__)

VARIABLE = "CHATTERBOX_CFG_SCALE"
_WHY = "Turbo and Nano were distilled without classifier-free guidance and run one pass per token"


def check_guidance(environment: Mapping[str, str]) -> None:
    """Say what becomes of the variable that the vLLM port of the original Chatterbox reads.

    Raises InvalidInput when it asks for guidance. 0 asks for none: that is what happens anyway, and is logged.
    """
    value = environment.get(VARIABLE, "").strip()
    if not value:
        return
    try:
        wanted = float(value) != 0
    except ValueError:
        wanted = True
    if wanted:
        raise invalid_value(VARIABLE, value, f"unset or 0: {_WHY}", "CFG_UNSUPPORTED")
    _log.info("%s=%s changes nothing: %s", VARIABLE, value, _WHY)
