"""Every engine option is documented in one place, and its default is one of its choices."""

from __future__ import annotations

import dataclasses

import pytest

from engines.config import EngineConfig

OPTIONS = dataclasses.fields(EngineConfig)


@pytest.mark.parametrize("option", OPTIONS, ids=[option.name for option in OPTIONS])
def test_an_option_has_a_help_text_that_flags_can_show(option: dataclasses.Field[object]) -> None:
    help_text, default = option.metadata["help"], option.default
    assert help_text
    assert not help_text.endswith("."), "a phrase, as flags' help is"
    assert (default is None) == ("default:" in help_text), "only an unset default needs words"
    if (choices := option.metadata["choices"]) is not None:
        assert set(default if isinstance(default, tuple) else (default,)) <= set(choices)
        assert isinstance(default, tuple) or all(choice in help_text for choice in choices)
