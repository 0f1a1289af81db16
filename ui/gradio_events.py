"""The options and the JavaScript of the page's Gradio events."""

from __future__ import annotations

from typing import Any

# Hidden from the API, and outside Gradio's queue: the queue loses the answer to an event that joins while the stream of
# earlier answers is closing.
DIRECT: dict[str, Any] = {"api_visibility": "private", "queue": False}


def js_call(file: str, call: str) -> str:
    """Returns the JavaScript of an event that imports `file` and calls one of its exports with the event's `args`.

    A click before the file has loaded waits for it.
    """
    return f"(...args) => {{ import('{file}').then(m => m.{call}); }}"
