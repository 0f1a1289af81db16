"""T3's prompt: [speaker][prompt speech tokens][text][start of speech]. The first two are the voice's prefix."""

from __future__ import annotations

from collections.abc import Sequence

from engines.errors import InvalidInput
from engines.model_spec import T3Spec
from engines.voice import Voice


def prefix_positions(voice: Voice) -> int:
    """Positions that depend on the voice alone: the speaker and the prompt's speech tokens."""
    return 1 + len(voice.t3_prompt_tokens)


def check_prompt(voice: Voice, text_tokens: Sequence[int], spec: T3Spec, max_positions: int) -> None:
    """Raises InvalidInput if the voice is of other weights, the text is empty or has unknown ids, or the prompt has
    more than `max_positions`."""
    refuse_prefix(voice)
    check_text_length(text_tokens, max_positions - prefix_positions(voice) - 1)
    check_text_tokens(text_tokens, spec.text_vocab)


def refuse_prefix(voice: Voice) -> None:
    """Raises InvalidInput if the voice was made with the published ONNX graphs."""
    if voice.t3_prefix is not None:
        raise InvalidInput(
            "voice",
            f"voice {voice.name!r} was made with the published ONNX graphs, which this model cannot use; "
            "make it again with this model.",
            "VOICE_INCOMPATIBLE",
            value=voice.name,
        )


def check_text_tokens(text_tokens: Sequence[int], text_vocab: int) -> None:
    """Raises InvalidInput if an id is not below `text_vocab`."""
    unknown = next((token for token in text_tokens if not 0 <= token < text_vocab), None)
    if unknown is not None:
        allowed = f"ids in [0, {text_vocab})"
        message = f"text_tokens has the id {unknown}; this model has {allowed}."
        raise InvalidInput("text_tokens", message, "TEXT_TOKEN_UNKNOWN", value=unknown, allowed=allowed)


def check_text_length(text_tokens: Sequence[int], max_tokens: int) -> None:
    """Raises InvalidInput if the text is empty or longer."""
    if not text_tokens:
        message = "text_tokens is empty; it must have at least one text token."
        raise InvalidInput("text_tokens", message, "TEXT_EMPTY", allowed="at least one text token")
    if len(text_tokens) > max_tokens:
        allowed = f"at most {max_tokens} text tokens"
        raise InvalidInput(
            "text",
            f"text has {len(text_tokens)} text tokens; with this voice and max_speech_tokens it can have {allowed}.",
            "TEXT_TOO_LONG",
            value=f"{len(text_tokens)} text tokens",
            allowed=allowed,
        )
