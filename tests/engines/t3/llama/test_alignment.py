"""Attention to the text, beside guided steps and by a pass of its own: that of the lane with text."""

from __future__ import annotations

import numpy as np
import pytest

from engines.model_spec import SPEECH_CODES
from engines.t3.alignment.calibrate import attention_to_text, speak
from engines.t3.alignment.lent import LentNet
from engines.t3.alignment.sources import ForcedAligner, TappedAligner
from engines.t3.alignment.tap import AlignmentHeads
from engines.t3.decoder import T3Decoder
from tests.engines.t3.llama.setting import net, request
from tests.engines.t3.setting import limits, run

HEADS = AlignmentHeads(((1, 2), (3, 0)))


@pytest.mark.parametrize("weight", [0.0, 0.5])
async def test_taps_of_guided_steps_see_what_a_forced_pass_sees(weight: float) -> None:
    one = request(1, cfg_weight=weight, max_speech_tokens=20)
    tapped_request, tapped = TappedAligner(HEADS).start(one)
    run(decoder := T3Decoder(net(), limits()), tapped_request)
    assert decoder.idle
    (raw,) = run(T3Decoder(net(), limits()), one)
    speech = [token for token in raw if token < SPEECH_CODES]
    assert speech == raw, "marks are not observed"
    forced = ForcedAligner(LentNet(4, net()), HEADS, 600)
    _, source = forced.start(one)
    rows = await source.rows(speech[:8])
    rows = np.concatenate([rows, await source.rows(speech)])
    forced.close()
    beside = await tapped.rows(speech)
    assert len(beside) == len(speech) - 1, "the last token is not read"
    np.testing.assert_allclose(beside, rows[:-1], atol=1e-5)
    assert rows.std() > 1e-3


def test_a_taps_shares_are_those_of_the_forced_pass_within_the_text() -> None:
    """That pass has the shares of all positions, the tap those of the text: within the text they are the same."""
    one = request(2, max_speech_tokens=12)
    speech = speak(net(), one.voice, one.text_tokens, one.sampling)
    attention = attention_to_text(net(), one.voice, one.text_tokens, speech)
    assert attention.shape == (4, 4, len(speech), 20)
    tapped, _ = TappedAligner(AlignmentHeads(((3, 1),))).start(one)
    run(T3Decoder(net(), limits()), tapped)
    assert tapped.tap is not None
    ours, whole = tapped.tap.attention(0, len(speech) - 1), attention[3, 1, :-1]
    within = [rows / rows.sum(1, keepdims=True) for rows in (ours, whole)]
    np.testing.assert_allclose(within[0], within[1], atol=1e-4)
