"""The shipped model's words lie where its own speech tokens say them, on texts that training has not seen."""

from __future__ import annotations

import asyncio

from bench.word_times import measure, summary
from engines.config import EngineConfig
from engines.factory import build_engine
from tests.speech.texts import SETS


def test_words_begin_and_end_where_they_are_spoken():
    engine = build_engine(EngineConfig(model="tiny", threads=1))
    measured = asyncio.run(measure(engine, [text.text for name in ("balanced", "random") for text in SETS[name]]))
    asyncio.run(engine.close())
    assert len(measured.starts_ms) > 15
    assert measured.missing == 0
    assert not measured.faults
    for median_ms, high_ms in (summary(measured)["start"], summary(measured)["end"]):
        assert median_ms <= 40
        assert high_ms <= 120
