"""The layout of the page: Gradio's controls, and the page's own player, timeline and list of voices.

Gradio holds the form's values. Everything with tight timing (sound, stop, timeline) is JavaScript in static/, which
gets the values from Gradio's events and uses the routes in app.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

import mynah
from ui.cloning import WAVEFORM, Cloning
from ui.gradio_events import DIRECT, js_call
from ui.recordings import Recording, Recordings
from ui.settings import make_settings
from ui.theme import make_theme

PACES = ["All at once", "Word by word"]
STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parent / "templates"
TEXT = (
    "Good morning, and welcome aboard. This is Mynah, speaking while I am still being written: the words reach me one "
    "by one, the way a language model finds them. Shall we begin?"
)


@contextmanager
def _tab(label: str, name: str, elem_id: str) -> Iterator[None]:
    """A tab that stays hidden until Gradio has set its controls; see static/tab.js."""
    with gr.Tab(label, id=name, elem_id=elem_id):
        yield
        gr.HTML("", js_on_load=(STATIC / "tab.js").read_text(), elem_classes="tab-end")


class Page:
    """The page as Gradio blocks. `root_path` is the path prefix in browsers."""

    def __init__(self, client: mynah.Client, recordings: Recordings, root_path: str) -> None:
        self._recordings = recordings
        self._module = f"{root_path}/mynah/static"
        with gr.Blocks(title="Mynah", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)) as blocks:
            self._custom("header", "import('{0}/status.js').then(m => m.mount(element));")
            with gr.Tabs(selected="speak", elem_id="tabs") as tabs:
                with _tab("Speak", "speak", "tab-speak"):
                    voices = self._speak()
                with _tab("Voices", "voices", "tab-voices"):
                    cloning = Cloning(client, self._module)
            cloning.connect(voices, tabs)
        self.blocks = blocks
        self.looks: dict[str, Any] = {
            "theme": make_theme(),
            "css_paths": [STATIC / "page.css"],
            "head": f'<link rel="modulepreload" href="{self._module}/page.js">',
        }

    def _custom(self, name: str, on_load: str, **options: Any) -> gr.HTML:
        """A custom component: templates/NAME.html and the JavaScript that drives it."""
        markup = (TEMPLATES / f"{name}.html").read_text()
        on_load = on_load.replace("{0}", self._module)
        return gr.HTML(markup, js_on_load=on_load, elem_id=name, apply_default_css=False, **options)

    def _speak(self) -> list[gr.Dropdown]:
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=7, min_width=300):
                with gr.Column(elem_classes="card"):
                    text = gr.Textbox(TEXT, label="Text", lines=4, max_lines=14, elem_id="text")
                    self._custom("tags", "import('{0}/tags.js').then(m => m.mount(element));")
                    with gr.Row(elem_classes="pace"):
                        pace = gr.Radio(PACES, value=PACES[0], label="Text arrives", elem_id="pace")
                        speed = gr.Slider(1, 30, value=8, step=1, label="Words per second", elem_id="speed", buttons=[])
                    with gr.Row(elem_classes="actions"):
                        speak = gr.Button("Speak", variant="primary", elem_id="speak")
                        gr.Button("Stop", elem_id="stop")  # handled by the player, because Gradio's events are slower
                        compare = gr.Button("Compare A and B", elem_id="compare")
                player = self._custom(
                    "player",
                    "import('{0}/page.js').then(m => m.mount(element, trigger)); /* triggers 'finished' */",
                    elem_classes="card",
                )
            with gr.Column(scale=4, min_width=280):
                with gr.Column(elem_classes="card"), gr.Tabs(elem_id="settings"):
                    with _tab("Settings A", "a", "settings-a"):
                        a = make_settings("a")
                    with _tab("Settings B", "b", "settings-b"):
                        b = make_settings("b")
                with gr.Column(elem_classes="card"):
                    result = gr.Audio(
                        label="Last recording, to download",
                        interactive=False,
                        elem_id="result",
                        format="wav",
                        buttons=["download"],
                        waveform_options=WAVEFORM,
                    )
        inputs, player_js = [text, pace, speed, *a.controls, *b.controls], f"{self._module}/page.js"
        for button, which in ((speak, "a"), (compare, "ab")):
            button.click(fn=None, inputs=inputs, js=js_call(player_js, f"speak('{which}', args)"), **DIRECT)
        player.finished(fn=self._result, outputs=[result], show_progress="hidden", **DIRECT)
        return [a.voice, b.voice]

    def _result(self, event: gr.EventData) -> Recording | None:
        """Returns the recording that the player reports as finished."""
        return self._recordings.get(str(event.recording_id))
