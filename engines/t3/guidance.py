"""Classifier-free guidance as the environment asks for it. Standard and Multilingual have it, by a weight of each
request; Turbo and Nano do not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from engines.config import MAX_CFG_WEIGHT, Sampling
from engines.errors import InvalidInput

_log = logging.getLogger(__name__)

VARIABLE = "CHATTERBOX_CFG_SCALE"
_WHY = "Turbo and Nano were distilled without classifier-free guidance and run one pass per token"


def with_environments_weight(defaults: Sampling, environment: Mapping[str, str]) -> Sampling:
    """Returns a guided model's defaults, with the weight of the variable if it is set. Requests may choose another.

    Raises InvalidInput for a weight that is not allowed.
    """
    value = environment.get(VARIABLE, "").strip()
    if not value:
        return defaults
    try:
        weighted = replace(defaults, cfg_weight=float(value))
    except (ValueError, InvalidInput):
        allowed = f"a number from 0 to {MAX_CFG_WEIGHT:g}"
        message = f"{VARIABLE} is {value}; it must be {allowed}, or unset."
        raise InvalidInput(VARIABLE, message, "CFG_WEIGHT_OUT_OF_RANGE", value=value, allowed=allowed) from None
    _log.info("%s=%s is the default of cfg_weight; a request may choose another", VARIABLE, value)
    return weighted


def check_guidance(environment: Mapping[str, str]) -> None:
    """Check the variable, which the vLLM port of the original Chatterbox reads, for a model without guidance.

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
