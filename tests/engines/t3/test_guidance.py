"""The environment variable for classifier-free guidance, which other ports read."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from engines.config import Sampling
from engines.errors import InvalidInput
from engines.t3.guidance import VARIABLE, check_guidance, with_environments_weight


@pytest.mark.parametrize("value", ["0.5", "1", "-1", "nan", "half"])
def test_guidance_is_rejected_with_the_reason(value: str) -> None:
    with pytest.raises(InvalidInput, match="Turbo and Nano were distilled without") as raised:
        check_guidance({VARIABLE: value})
    assert (raised.value.field, raised.value.reason) == (VARIABLE, "CFG_UNSUPPORTED")


@pytest.mark.parametrize("value", ["0", "0.0", " 0 "])
def test_asking_for_no_guidance_is_logged_as_without_effect(value: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_guidance({VARIABLE: value})
    assert "changes nothing" in caplog.text


@pytest.mark.parametrize("environment", [{}, {VARIABLE: ""}])
def test_without_the_variable_nothing_is_logged(environment: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_guidance(environment)
    assert not caplog.text


GUIDED = Sampling(cfg_weight=0.5, min_p=0.05)


@pytest.mark.parametrize("value", ["0", "0.7", " 2 "])
def test_the_variable_is_a_guided_models_default_and_is_logged(value: str, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"):
        assert with_environments_weight(GUIDED, {VARIABLE: value}) == replace(GUIDED, cfg_weight=float(value))
    assert f"{VARIABLE}={value.strip()} is the default of cfg_weight" in caplog.text


def test_without_the_variable_the_models_default_stays():
    for environment in ({}, {VARIABLE: ""}):
        assert with_environments_weight(GUIDED, environment) == GUIDED


@pytest.mark.parametrize("value", ["-0.1", "2.1", "nan", "much"])
def test_a_weight_that_is_not_allowed_is_refused_by_the_variables_name(value: str):
    with pytest.raises(InvalidInput, match="from 0 to 2") as raised:
        with_environments_weight(GUIDED, {VARIABLE: value})
    assert (raised.value.field, raised.value.reason) == (VARIABLE, "CFG_WEIGHT_OUT_OF_RANGE")
