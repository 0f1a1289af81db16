"""The Voices tab: record or upload a clip, check it, clone the voice; use and delete voices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

import mynah
from ui.error_messages import error_message
from ui.gradio_events import DIRECT, js_call
from ui.settings import DEFAULT_VOICE

WAVEFORM = gr.WaveformOptions(waveform_color="#8d84a8", waveform_progress_color="#c47f00")
ADVICE = "Use 10 to 15 seconds of one person who speaks calmly, without music or echo."
CONSENT = "The speaker agreed to the cloning of this voice with Mynah."


class Cloning:
    """The components of the tab, made inside a Blocks context. `module` is the URL of the JavaScript folder."""

    def __init__(self, client: mynah.Client, module: str) -> None:
        self._client, self._module = client, module
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=300, elem_classes="card"):
                gr.HTML(f"<h2>Clone a voice</h2><p>{ADVICE}</p>")
                self.clip = gr.Audio(
                    sources=["microphone", "upload"],
                    type="filepath",
                    label="Recording",
                    elem_id="clip",
                    editable=False,
                    buttons=[],
                    waveform_options=WAVEFORM,
                )
                gr.HTML(
                    (Path(__file__).parent / "templates" / "clip.html").read_text(),
                    elem_id="verdict",
                    js_on_load=f"import('{module}/clip.js').then(clip => clip.mount(element));",
                )
                placeholder = "Whose voice is it?"
                self.name = gr.Textbox(label="Name", placeholder=placeholder, max_lines=1, elem_id="voice-name")
                self.consent = gr.Checkbox(label=CONSENT, elem_id="consent")
                self.create = gr.Button("Clone this voice", variant="primary", elem_id="create")
            with gr.Column(scale=4, min_width=300, elem_classes="card"):
                gr.HTML("<h2>Voices on this server</h2>")
                self.listed = gr.HTML(
                    [],
                    html_template="<ul class='voices'></ul><p class='voices-note' role='status'></p>",
                    elem_id="voices",
                    js_on_load=f"import('{module}/voices.js').then(m => m.mount(element, props, trigger, watch));"
                    "/* triggers 'use', 'delete' and 'refresh' */",
                )
        self.answer = gr.JSON(visible="hidden", elem_id="clone-answer")

    def connect(self, voices: list[gr.Dropdown], tabs: gr.Tabs) -> None:
        """Attach the event handlers. `voices` are the dropdowns in the settings."""
        clip_js = f"{self._module}/clip.js"
        private: dict[str, Any] = {**DIRECT, "show_progress": "hidden"}
        listing: dict[str, Any] = {"fn": self.list, "outputs": [self.listed, *voices], **private}
        self.clip.change(fn=None, inputs=[self.clip], js=js_call(clip_js, "clip(...args)"), **private)
        self.create.click(
            fn=self.clone,
            inputs=[self.clip, self.name, self.consent],
            outputs=[self.answer],
            js=f"async (...args) => {{ await (await import('{clip_js}')).creating(); return args; }}",
            **private,
        ).then(fn=None, inputs=[self.answer], js=js_call(clip_js, "created(...args)"), **private).then(**listing)
        self.listed.refresh(**listing)
        self.listed.use(fn=_use, outputs=[voices[0], tabs], **private)
        self.listed.delete(fn=self.delete, outputs=[self.answer], **private).then(
            fn=None, inputs=[self.answer], js=js_call(f"{self._module}/voices.js", "deleted(...args)"), **private
        ).then(**listing)

    async def list(self) -> list[Any]:
        """Returns the list's value and the choices of each dropdown. Changes nothing if the server does not answer."""
        try:
            voices = await self._client.voices.list()
        except mynah.MynahError:
            return [gr.skip()] * 3
        listed = [
            {
                "id": voice.voice_id,
                "name": DEFAULT_VOICE[0] if voice.built_in else voice.name,
                "built_in": voice.built_in,
                "seconds": round(voice.reference_s, 1),
                "created": voice.created.isoformat() if voice.created else "",
            }
            for voice in voices
        ]
        listed.sort(key=lambda voice: (not voice["built_in"], str(voice["name"]).casefold()))
        choices = [(str(voice["name"]), str(voice["id"])) for voice in listed] or [DEFAULT_VOICE]
        return [listed, gr.update(choices=choices), gr.update(choices=choices)]

    async def clone(self, clip: str | None, name: str, consent: bool) -> dict[str, Any]:
        """Create a voice from the clip. Returns its id and name, or the error message."""
        if clip is None:
            return {"message": "Record or upload a clip first.", "field": "clip"}
        try:
            voice = await self._client.voices.create(name, Path(clip), consent=consent)
        except mynah.MynahError as error:
            return error_message(error)
        except OSError:
            return {"message": "The recording is no longer available. Upload it again.", "field": "clip"}
        return {"created": voice.voice_id, "name": voice.name}

    async def delete(self, event: gr.EventData) -> dict[str, Any]:
        """Delete the voice that the event names. Returns its name, or the error message."""
        try:
            await self._client.voices.delete(str(event.id))
        except mynah.MynahError as error:
            return error_message(error)
        return {"deleted": str(event.name)}


def _use(event: gr.EventData) -> list[Any]:
    return [gr.update(value=str(event.id)), gr.Tabs(selected="speak")]
