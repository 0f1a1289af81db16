"""The controls of a recording's settings: sampling and seed. The page has two sets, A and B, to compare."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from ui.gradio_events import DIRECT

# Ranges, and Turbo's defaults, as in mynah.v1.Sampling: name -> (label, hint, minimum, maximum, step, default).
# static/model.js sets the sliders to the defaults of another model.
SAMPLING: dict[str, tuple[str, str, float, float, float, float]] = {
    "temperature": ("Temperature", "Higher values sound livelier; 0 is steady", 0, 5, 0.05, 0.8),
    "top_p": ("Top p", "Share of likely sounds; 1 allows all", 0.05, 1, 0.05, 0.95),
    "top_k": ("Top k", "Number of likely sounds; 0 allows all", 0, 6563, 1, 1000),
    "repetition_penalty": ("Repetition penalty", "Values above 1 reduce repetitions", 0.1, 10, 0.1, 1.2),
    "max_speech_tokens": ("Longest segment", "Maximum per sentence, in steps of 40 ms", 1, 1000, 1, 1000),
}


@dataclass(frozen=True)
class Settings:
    """The controls of settings A or B, in the order that the page's JavaScript expects."""

    sampling: list[gr.Slider]
    seed: gr.Textbox

    @property
    def controls(self) -> list[Component]:
        return [*self.sampling, self.seed]


def make_settings(name: str, module: str) -> Settings:
    """Create the controls. `name` is "a" or "b" and ends their element ids; `module` is the address of model.js, which
    knows the loaded model's defaults."""
    sliders = [
        gr.Slider(
            minimum,
            maximum,
            value=default,
            step=step,
            label=label,
            info=hint,
            elem_id=f"{key.replace('_', '-')}-{name}",
            elem_classes="knob",
            buttons=[],
        )
        for key, (label, hint, minimum, maximum, step, default) in SAMPLING.items()
    ]
    seed = gr.Textbox(
        label="Seed",
        info="The same seed and settings repeat the same speech",
        placeholder="new each time",
        elem_id=f"seed-{name}",
        max_lines=1,
    )
    reset = gr.Button("Back to defaults", size="sm", elem_classes="quiet")
    defaults = f"() => import('{module}').then(m => m.defaults('{name}'))"
    reset.click(fn=None, js=defaults, outputs=[*sliders, seed], **DIRECT)
    return Settings(sliders, seed)
