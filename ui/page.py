"""The layout of the page: Gradio's controls, and the page's own player, list of recordings, recorder and voices.

Gradio holds the form's values; it runs no code on the server. Everything else is JavaScript in static/, which gets the
values from Gradio's events and uses the routes in app.py. What is of class `expert` shows in the expert view only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from ui.gradio_events import DIRECT, js_call
from ui.settings import Settings, make_settings
from ui.theme import make_theme

PACES = ["All at once", "Word by word"]
BEGINNINGS = [("With a sentence", "sentence"), ("With a clause", "clause")]
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

    def __init__(self, root_path: str) -> None:
        self._module = f"{root_path}/mynah/static"
        with gr.Blocks(title="Mynah", analytics_enabled=False, fill_width=True) as blocks:
            self._custom("header")
            with gr.Tabs(selected="speak", elem_id="tabs"):
                with _tab("Speak", "speak", "tab-speak"):
                    self._speak()
                with _tab("Voices", "voices", "tab-voices"), gr.Row(elem_classes="columns"):
                    with gr.Column(scale=5, min_width=300, elem_classes="card"):
                        self._custom("clone")
                    with gr.Column(scale=4, min_width=300, elem_classes="card"):
                        self._custom("voices")
        self.blocks = blocks
        self.looks: dict[str, Any] = {
            "theme": make_theme(),
            "css_paths": [STATIC / "page.css"],
            "head": f'<link rel="modulepreload" href="{self._module}/page.js">',
        }

    def _custom(self, name: str, *, values: dict[str, str] | None = None, **options: Any) -> None:
        """A component of the page's own: templates/NAME.html with `values`, driven by static/NAME.js."""
        markup = (TEMPLATES / f"{name}.html").read_text()
        for key, value in (values or {}).items():
            markup = markup.replace(f"{{{key}}}", value)
        on_load = f"import('{self._module}/{name}.js').then(m => m.mount(element));"
        gr.HTML(markup, js_on_load=on_load, apply_default_css=False, **{"elem_id": name, **options})

    def _voice(self, which: str, label: str) -> None:
        self._custom("voice", values={"which": which, "label": label}, elem_id=f"voice-of-{which}")

    def _settings(self, which: str) -> Settings:
        settings = make_settings(which, f"{self._module}/model.js")
        self._custom("model", values={"which": which}, elem_id=f"model-of-{which}")
        return settings

    def _speak(self) -> None:
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=7, min_width=300):
                with gr.Column(elem_classes="card"):
                    text = gr.Textbox(TEXT, label="Text", lines=4, max_lines=14, elem_id="text")
                    self._custom("writing")
                    self._voice("a", "Voice")
                    self._custom("models", elem_id="model-of-text")
                    self._custom("language", elem_id="language-of-text")
                    speed = gr.Slider(0.5, 2, value=1, step=0.05, label="Speed", elem_id="voice-speed", buttons=[])
                    with gr.Row(elem_classes="pace expert"):
                        pace = gr.Radio(PACES, value=PACES[0], label="Text arrives", elem_id="pace")
                        typing = gr.Slider(
                            1, 30, value=8, step=1, label="Words per second", elem_id="speed", buttons=[]
                        )
                    begins = gr.Radio(
                        BEGINNINGS, value="sentence", label="Speech begins", elem_id="begins", elem_classes="expert"
                    )
                    gr.Textbox(
                        label="Respellings",
                        info="One in each line: nginx = engine ex",
                        elem_id="respellings",
                        elem_classes="expert",
                        lines=2,
                        max_lines=8,
                    )
                    with gr.Row(elem_classes="actions"):
                        speak = gr.Button("Speak", variant="primary", elem_id="speak")
                        gr.Button("Stop", elem_id="stop")  # handled by the player, because Gradio's events are slower
                        compare = gr.Button("Compare A and B", elem_id="compare", elem_classes="expert")
                    self._custom("expert")
                self._custom("page", elem_classes="card")
            with gr.Column(scale=4, min_width=280):
                with gr.Column(elem_classes="card"):
                    self._custom("takes")
                with gr.Column(elem_classes="card expert"), gr.Tabs(elem_id="settings"):
                    with _tab("Settings A", "a", "settings-a"):
                        a = self._settings("a")
                    with _tab("Settings B", "b", "settings-b"):
                        self._voice("b", "Voice of B")
                        b = self._settings("b")
        inputs, player_js = [text, pace, typing, begins, speed, *a.controls, *b.controls], f"{self._module}/page.js"
        for button, which in ((speak, "a"), (compare, "ab")):
            button.click(fn=None, inputs=inputs, js=js_call(player_js, f"speak('{which}', args)"), **DIRECT)
        speed.input(fn=None, inputs=[speed], js=js_call(player_js, "setSpeed(args)"), **DIRECT)
