"""Classifier-free guidance by the environment variable that a port of Chatterbox reads. Turbo and Nano have none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from engines.config import MAX_CFG_WEIGHT, Sampling
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


def with_guidance(sampling: Sampling, environment: Mapping[str, str]) -> Sampling:
    """Returns a guided model's defaults, with the variable's value as `cfg_weight` where it is set.

    Raises InvalidInput if it is not a number of 0 to 2.
    """
    value = environment.get(VARIABLE, "").strip()
    if not value:
        return sampling
    try:
        changed = replace(sampling, cfg_weight=float(value))
    except (ValueError, InvalidInput) as error:
        allowed = f"a number of 0 to {MAX_CFG_WEIGHT:g}"
        message = f"{VARIABLE} is {value}; it must be {allowed}."
        raise InvalidInput(VARIABLE, message, "CFG_WEIGHT_OUT_OF_RANGE", value=value, allowed=allowed) from error
    _log.info(
        "%s=%s: the default of cfg_weight is %g, as long as a stream has none of its own",
        VARIABLE,
        value,
        changed.cfg_weight,
    )
    return changed
