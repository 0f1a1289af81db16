"""Classifier-free guidance: some ports of Chatterbox offer it; Turbo and Nano do not have it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from engines.errors import InvalidInput

_log = logging.getLogger(__name__)

VARIABLE = "CHATTERBOX_CFG_SCALE"
_WHY = "Turbo and Nano were distilled without classifier-free guidance and run one pass per token"


def check_guidance(environment: Mapping[str, str]) -> None:
    """Check the environment variable that the vLLM port of the original Chatterbox reads.

    Raises InvalidInput if it asks for guidance. 0 asks for none and is logged as without effect.
    """
    value = environment.get(VARIABLE, "").strip()
    if not value:
        return
    try:
        guided = float(value) != 0
    except ValueError:
        guided = True
    if guided:
        message = f"{VARIABLE} is {value}; it must be unset or 0: {_WHY}."
        raise InvalidInput(VARIABLE, message, "CFG_UNSUPPORTED", value=value, allowed="unset or 0")
    _log.info("%s=%s changes nothing: %s", VARIABLE, value, _WHY)
