"""The dimensions of the tiny model, which are the engine's.

The CFM needs more channels than there are mel bands, or it cannot take the noise out; T3's text vocabulary is words.
"""

from __future__ import annotations

from engines.config import TINY

SPEC = TINY
