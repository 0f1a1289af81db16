"""One setting of a take: voice, sampling, seed. The page has two, A and B, to be compared on one text."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from ui.events import DIRECT

# Defaults and ranges as in mynah.v1.Sampling: name -> (label, what it does, lowest, highest, step, default)
SAMPLING: dict[str, tuple[str, str, float, float, float, float]] = {
    "temperature": ("Temperature", "How freely it speaks; 0: not at all", 0, 5, 0.05, 0.8),
    "top_p": ("Top p", "Share of the likeliest sounds; 1: all", 0.05, 1, 0.05, 0.95),
    "top_k": ("Top k", "Number of the likeliest sounds; 0: all", 0, 6563, 1, 1000),
    "repetition_penalty": ("Repetition penalty", "Above 1, fewer repetitions", 0.1, 10, 0.1, 1.2),
    "max_speech_tokens": ("Longest segment", "Speech tokens of 40 ms each, per sentence", 1, 1000, 1, 1000),
}
DEFAULT_VOICE = ("Built-in voice", "default")


@dataclass(frozen=True)
class Setting:
    """The controls of setting A or B, in the order in which the page's JavaScript takes them."""

    voice: gr.Dropdown
    sampling: list[gr.Slider]
    seed: gr.Textbox

    @property
    def controls(self) -> list[Component]:
        return [self.voice, *self.sampling, self.seed]


def make_setting(name: str) -> Setting:
    """Draw the controls; `name` is "a" or "b" and stands in their ids."""
    voice = gr.Dropdown(
        [DEFAULT_VOICE], value=DEFAULT_VOICE[1], label="Voice", elem_id=f"voice-{name}", allow_custom_value=True
    )
    sliders = [
        gr.Slider(
            lowest,
            highest,
            value=default,
            step=step,
            label=label,
            info=what,
            elem_id=f"{key.replace('_', '-')}-{name}",
            elem_classes="knob",
            buttons=[],
        )
        for key, (label, what, lowest, highest, step, default) in SAMPLING.items()
    ]
    seed = gr.Textbox(
        label="Seed",
        info="With all else the same, the same speech",
        placeholder="new each time",
        elem_id=f"seed-{name}",
        max_lines=1,
    )
    reset = gr.Button("Back to defaults", size="sm", elem_classes="quiet")
    defaults = [default for *_, default in SAMPLING.values()]
    reset.click(fn=None, js=f"() => {[*defaults, '']!r}", outputs=[*sliders, seed], **DIRECT)
    return Setting(voice, sliders, seed)
