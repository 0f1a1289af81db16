"""Heads that follow the text, kept at the place that is being spoken: what they may see, and that others see all."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

import engines
from engines.config import EngineConfig, Sampling
from engines.errors import InvalidInput
from engines.t3.alignment.constrained import ConstrainedTap
from engines.t3.alignment.setup import Alignment
from engines.t3.alignment.sources import TappedAligner
from engines.t3.alignment.tap import AlignmentHeads
from engines.t3.backend import T3Request
from engines.t3.kv_cache import KvSlot
from tests.engines.t3.setting import net, request

HEADS = AlignmentHeads(((1, 0), (1, 2)))
TEXT_TOKENS, FIRST = 20, 30


def tap_at(position: int) -> ConstrainedTap:
    """A tap whose queries look at one text token after the other; `position` rows have been read."""
    torch.manual_seed(0)
    slot = KvSlot(net().spec, 64, torch.device("cpu"), torch.float32)
    slot.reserve(64)
    heads, dim = slot.memory.shape[2], slot.memory.shape[4]
    slot.memory[:] = 0.0
    for place in range(min(TEXT_TOKENS, dim)):
        slot.memory[:, 0, :, FIRST + place, place] = 40.0
    tap = ConstrainedTap(HEADS, TEXT_TOKENS)
    tap.begin(slot, FIRST)
    for place in range(position):
        for _ in range(3):
            read(tap, place, heads, dim)
    return tap


def read(tap: ConstrainedTap, place: int, heads: int | None = None, dim: int | None = None) -> torch.Tensor:
    """A row that looks at a place; returns the mask of the layer with chosen heads."""
    spec = net().spec
    queries = torch.zeros(1, heads or spec.heads, dim or spec.width // spec.heads)
    queries[:, :, place] = 1.0
    assert tap.take(0, queries, 60) is None
    mask = tap.take(1, queries, 60)
    assert mask is not None
    return mask


def test_the_chosen_heads_see_no_text_but_what_is_about_the_place():
    mask = read(tap_at(7), 6)
    for head in range(mask.shape[1]):
        hidden = set(torch.nonzero(mask[0, head, 0]).flatten().tolist())
        if head not in HEADS.of(1):
            assert not hidden, "other heads see all"
            continue
        assert hidden == set(range(FIRST, FIRST + 5)) | set(range(FIRST + 12, FIRST + TEXT_TOKENS))
    assert torch.isneginf(mask[mask != 0]).all()


def test_the_place_goes_on_and_never_back():
    tap = tap_at(7)
    assert tap.position == 6
    for _ in range(5):
        read(tap, 0)
    assert tap.position == 6
    read(tap, 9)
    assert tap.position == 6, "one row may be a glance"
    read(tap, 9)
    assert tap.position == 9
    for _ in range(5):
        read(tap, 19)
    assert tap.position <= 14, "not beyond what may be seen"


def test_only_guarded_segments_are_constrained():
    one = request(1)
    for constrained, guarded, kind in ((True, True, True), (True, False, False), (False, True, False)):
        taken, _ = TappedAligner(HEADS, constrained=constrained).start(one, guarded=guarded)
        assert isinstance(taken.tap, ConstrainedTap) is kind


def test_where_it_is_not_possible_it_is_refused():
    for heads, calls_taps in ((None, True), (HEADS, False)):
        alignment = Alignment(heads, "", lambda layers: pytest.fail("no net is loaded"))
        with pytest.raises(InvalidInput) as refused:
            alignment.aligner(calls_taps, 2048, None, constrained=True)  # type: ignore[arg-type]
        assert refused.value.reason == "ATTENTION_UNSUPPORTED"


def test_the_shipped_model_says_its_text_with_constrained_heads():
    engine = engines.load(EngineConfig(model="tiny", threads=1, attention="constrained", strict_reference=True))

    async def tokens(guarded: bool) -> list[int]:
        text_tokens = engine.stages.encode_text("Good morning to you.")  # type: ignore[attr-defined]
        voice = engine.default_voice
        assert voice is not None
        asked = T3Request(text_tokens, voice, Sampling(seed=4, max_speech_tokens=80))
        asked, source = engine.stages.aligner.start(asked, guarded=guarded)  # type: ignore[attr-defined]
        generation, made = engine.stages.t3.start(asked), list[int]()  # type: ignore[attr-defined]
        while new := await generation.next_speech_tokens():
            made += new
        attention = await source.rows(made[:-3])
        assert np.all(np.diff(attention.argmax(1)) > -2), "it follows the text"
        return made

    async def both() -> tuple[list[int], list[int]]:
        return await tokens(True), await tokens(False)

    with asyncio.Runner() as runner:
        constrained, free = runner.run(both())
        assert len(constrained) == pytest.approx(len(free), rel=0.4)
        runner.run(engine.close())
