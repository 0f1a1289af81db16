"""A new voice in words: what it was made from, how near it comes, whether it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mynah.client.events import Voice

_NEAR, _FAR = 0.85, 0.7  # similarities; what lies between is somewhat like the speaker


def described(voice: Voice, audio: Path) -> Iterator[str]:
    """Yields the lines about a voice that was made from `audio`."""
    yield f"created voice {voice.voice_id} ({voice.name}) from {_part(voice)} of {audio}"
    if voice.speech_share is not None and voice.speech_to_noise_db is not None:
        yield f"{voice.speech_share:.0%} of that is speech, {voice.speech_to_noise_db:.0f} dB above the noise"
    for warning in voice.warnings:
        yield f"warning: {warning.message}"
    if voice.similarity is not None:
        yield f"similarity to the recording: {voice.similarity:.2f} ({_in_words(voice.similarity)})"
    elif voice.similarity_skipped:
        yield f"similarity to the recording: not measured. {voice.similarity_skipped}"
    if voice.kept:
        yield "the server keeps this voice" + (" and its recording" if voice.recording_kept else "")
    else:
        yield "this voice ends with the server, which keeps voices if it is started with --voices-dir FOLDER"


def _part(voice: Voice) -> str:
    if voice.used_s is None or voice.used_from_s is None:
        return f"{voice.reference_s:.1f} s"
    return (
        f"{voice.used_s:.1f} s, beginning at {voice.used_from_s:.1f} s,"
        if voice.used_from_s
        else f"{voice.used_s:.1f} s"
    )


def _in_words(similarity: float) -> str:
    if similarity >= _NEAR:
        return "near"
    return "somewhat like it" if similarity >= _FAR else "another voice than the recording's"
