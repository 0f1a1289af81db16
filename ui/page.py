"""What the page consists of: Gradio's controls, and our own player, timeline and voices between them.

Gradio holds what a person fills in; everything that must not wait (sound, stop, timeline) is the JavaScript in
static/, which gets the controls' values from Gradio's events and speaks to the routes beside the page (app.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

import mynah
from ui.cloning import WAVEFORM, Cloning
from ui.events import DIRECT, calling
from ui.setting import make_setting
from ui.takes import Pcm, Takes
from ui.theme import make_theme

PACES = ["All at once", "Type as an agent"]
STATIC = Path(__file__).parent / "static"
TEXT = (
    "Good morning, and welcome aboard. This is Mynah, speaking while I am still being written: the words reach me one "
    "by one, the way a language model finds them. Shall we begin?"
)


@contextmanager
def _tab(label: str, name: str, elem_id: str) -> Iterator[None]:
    """A tab that shows itself when it may be used; see static/tab.js."""
    with gr.Tab(label, id=name, elem_id=elem_id):
        yield
        gr.HTML("", js_on_load=(STATIC / "tab.js").read_text(), elem_classes="tab-end")


class Page:
    """The page for one connection. `root_path` is the prefix under which browsers see it."""

    def __init__(self, client: mynah.Client, takes: Takes, root_path: str) -> None:
        self._takes = takes
        self._module = f"{root_path}/mynah/static"
        with gr.Blocks(title="Mynah", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)) as blocks:
            self._own("header", "import('{0}/status.js').then(m => m.mount(element));")
            with gr.Tabs(selected="speak", elem_id="tabs") as tabs:
                with _tab("Speak", "speak", "tab-speak"):
                    voices = self._speak()
                with _tab("Voices", "voices", "tab-voices"):
                    cloning = Cloning(client, self._module)
            cloning.listen(voices, tabs)
        self.blocks = blocks
        self.looks: dict[str, Any] = {
            "theme": make_theme(),
            "css_paths": [STATIC / "page.css"],
            "head": f'<link rel="modulepreload" href="{self._module}/page.js">',
        }

    def _own(self, name: str, on_load: str, **options: Any) -> gr.HTML:
        """A part of our own: static/NAME.html and the JavaScript that brings it to life."""
        markup = (STATIC / f"{name}.html").read_text()
        on_load = on_load.replace("{0}", self._module)
        return gr.HTML(markup, js_on_load=on_load, elem_id=name, apply_default_css=False, **options)

    def _speak(self) -> list[gr.Dropdown]:
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=7, min_width=300):
                with gr.Column(elem_classes="card"):
                    text = gr.Textbox(TEXT, label="Text", lines=4, max_lines=14, elem_id="text")
                    self._own("tags", "import('{0}/tags.js').then(m => m.mount(element));")
                    with gr.Row(elem_classes="pace"):
                        pace = gr.Radio(PACES, value=PACES[0], label="The text comes", elem_id="pace")
                        speed = gr.Slider(1, 30, value=8, step=1, label="Words per second", elem_id="speed", buttons=[])
                    with gr.Row(elem_classes="actions"):
                        speak = gr.Button("Speak", variant="primary", elem_id="speak")
                        gr.Button("Stop", elem_id="stop")  # the player itself listens: Gradio's events come later
                        compare = gr.Button("Compare A and B", elem_id="compare")
                player = self._own(
                    "player",
                    "import('{0}/page.js').then(m => m.mount(element, trigger)); /* tells 'finished' */",
                    elem_classes="card",
                )
            with gr.Column(scale=4, min_width=280):
                with gr.Column(elem_classes="card"), gr.Tabs(elem_id="settings"):
                    with _tab("Setting A", "a", "setting-a"):
                        a = make_setting("a")
                    with _tab("Setting B", "b", "setting-b"):
                        b = make_setting("b")
                with gr.Column(elem_classes="card"):
                    result = gr.Audio(
                        label="The last take, to keep",
                        interactive=False,
                        elem_id="result",
                        format="wav",
                        buttons=["download"],
                        waveform_options=WAVEFORM,
                    )
        given, player_js = [text, pace, speed, *a.controls, *b.controls], f"{self._module}/page.js"
        for button, which in ((speak, "a"), (compare, "ab")):
            button.click(fn=None, inputs=given, js=calling(player_js, f"speak('{which}', given)"), **DIRECT)
        player.finished(fn=self._result, outputs=[result], show_progress="hidden", **DIRECT)
        return [a.voice, b.voice]

    def _result(self, event: gr.EventData) -> tuple[int, Pcm] | None:
        """The take that the player says is finished."""
        return self._takes.get(str(event.take))
