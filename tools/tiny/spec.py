"""The dimensions of the tiny model that speaks. They are `engines.config.TINY`'s once its weights ship; until then that
name stands for random weights that tests like small.

The CFM needs more channels than there are mel bands, or it cannot take the noise out; T3's text vocabulary is words.
"""

from __future__ import annotations

from dataclasses import replace

from engines.config import TINY

SPEC = replace(
    TINY,
    t3=replace(TINY.t3, heads=4, text_vocab=17_408),
    flow=replace(TINY.flow, channels=128),
    vocoder=replace(TINY.vocoder, base_channels=128),
)
