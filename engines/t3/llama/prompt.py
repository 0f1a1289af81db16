"""The prompt of standard and Multilingual: [conditioning][START text STOP][start of speech twice]."""

from __future__ import annotations

from collections.abc import Sequence

from engines.model_spec import LlamaSpec
from engines.t3.prompt import check_text_length, check_text_tokens, refuse_prefix
from engines.voice import Voice

START_TEXT, STOP_TEXT = 255, 0  # rows of the text embedding


def check_llama_prompt(voice: Voice, text_tokens: Sequence[int], spec: LlamaSpec, max_positions: int) -> None:
    """Raises InvalidInput if the voice is of other weights, the text is empty or has unknown ids, or the prompt has
    more than `max_positions`."""
    refuse_prefix(voice)
    around = spec.conditioning_rows + 4  # with START, STOP and the start of speech twice
    check_text_length(text_tokens, min(max_positions - around, spec.text_positions - 2))
    check_text_tokens(text_tokens, spec.text_vocab)
