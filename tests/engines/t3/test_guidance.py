"""The environment variable for classifier-free guidance, which other ports read."""

from __future__ import annotations

import logging

import pytest

from engines.errors import InvalidInput
from engines.t3.guidance import VARIABLE, check_guidance


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
