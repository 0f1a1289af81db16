"""The arguments of `mynah say` and `mynah batch` for how text is read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mynah.client.dictionary import parse_dictionary
from mynah.client.settings import DictionaryEntry, TextSettings


def add_text_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options."""

    def add(name: str, text: str, **options: Any) -> None:
        parser.add_argument(name, help=text, **options)

    markup = (
        "SSML in the text is refused and HTML removed, both are removed, or both are spoken as text; ssml obeys SSML "
        "and refuses what it cannot obey, ssml_lenient ignores that (default: the server's choice)"
    )
    add("--markup", markup, choices=("refuse", "strip", "literal", "ssml", "ssml_lenient"))
    unspeakable = "sentences in a script that the model does not speak are skipped or refused (default: as above)"
    add("--unspeakable-text", unspeakable, choices=("skip", "refuse"))
    switch = argparse.BooleanOptionalAction
    add("--drop-thinking", "leave out what stands between <think> and </think> (default: as above)", action=switch)
    normalize = (
        "speak numbers, dates, money, addresses and the like as English words, leave out Markdown, and obey "
        "[pause:0.5s] (default: as above)"
    )
    add("--normalize", normalize, action=switch)
    add("--emoji", "leave emoji out, or speak their names (default: as above)", choices=("drop", "name"))
    add("--paragraph-pause", "silence between two paragraphs (default: as above)", type=float, metavar="SECONDS")
    add(
        "--dictionary",
        'file of respellings, one "word = respelling" in each line; a word in double quotes regards case',
        type=Path,
        metavar="FILE",
    )


def text_settings(args: argparse.Namespace) -> TextSettings:
    """Returns the settings that the options ask for. Raises OSError, InvalidArgument for a bad dictionary."""
    return TextSettings(
        args.markup,
        args.unspeakable_text,
        args.drop_thinking,
        normalize=args.normalize,
        emoji=args.emoji,
        paragraph_pause_s=args.paragraph_pause,
        dictionary=_dictionary(args.dictionary),
    )


def _dictionary(path: Path | None) -> tuple[DictionaryEntry, ...]:
    return () if path is None else parse_dictionary(path.read_text(encoding="utf-8"), str(path))
