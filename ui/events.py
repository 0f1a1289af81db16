"""How the page's events are wired to its JavaScript and to Gradio. Knows no part of the page."""

from __future__ import annotations

from typing import Any

# For every event: nothing for other programs, and not through Gradio's queue, which loses the answer to an event that
# joins it while the stream of answers to earlier ones is being closed.
DIRECT: dict[str, Any] = {"api_visibility": "private", "queue": False}


def calling(file: str, call: str) -> str:
    """The JavaScript of an event that imports `file` and makes a call of what it exports; the event's values are
    `given`. Importing it here makes a click wait for the code that answers it."""
    return f"(...given) => {{ import('{file}').then(m => m.{call}); }}"
