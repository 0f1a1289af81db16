"""The voices' tab: record or upload a clip, see whether it will do, name it, use it, delete it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

import mynah
from ui.events import DIRECT, calling
from ui.setting import DEFAULT_VOICE
from ui.words import explain

WAVEFORM = gr.WaveformOptions(waveform_color="#8d84a8", waveform_progress_color="#c47f00")
ADVICE = "Ten to fifteen seconds of one person, speaking calmly, without music or echo."
CONSENT = "The person who speaks here agreed to having their voice cloned with Mynah."


class Cloning:
    """The tab's parts; made inside a Blocks context. `module` is where the JavaScript lies."""

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
                    (Path(__file__).parent / "static" / "clip.html").read_text(),
                    elem_id="verdict",
                    js_on_load=f"import('{module}/clip.js').then(clip => clip.mount(element));",
                )
                whose = "Whose voice is it?"
                self.name = gr.Textbox(label="Name", placeholder=whose, max_lines=1, elem_id="voice-name")
                self.consent = gr.Checkbox(label=CONSENT, elem_id="consent")
                self.create = gr.Button("Clone this voice", variant="primary", elem_id="create")
            with gr.Column(scale=4, min_width=300, elem_classes="card"):
                gr.HTML("<h2>Voices on this server</h2>")
                self.listed = gr.HTML(
                    [],
                    html_template="<ul class='voices'></ul><p class='voices-note' role='status'></p>",
                    elem_id="voices",
                    js_on_load=f"import('{module}/voices.js').then(m => m.mount(element, props, trigger, watch));"
                    "/* tells 'use', 'forget' and 'refresh' */",
                )
        self.answer = gr.JSON(visible="hidden", elem_id="clone-answer")

    def listen(self, voices: list[gr.Dropdown], tabs: gr.Tabs) -> None:
        """Connect the parts with each other and with the settings' voices."""
        clip_js = f"{self._module}/clip.js"
        private: dict[str, Any] = {**DIRECT, "show_progress": "hidden"}
        listing: dict[str, Any] = {"fn": self.list, "outputs": [self.listed, *voices], **private}
        self.clip.change(fn=None, inputs=[self.clip], js=calling(clip_js, "clip(...given)"), **private)
        self.create.click(
            fn=self.make,
            inputs=[self.clip, self.name, self.consent],
            outputs=[self.answer],
            js=f"async (...given) => {{ await (await import('{clip_js}')).creating(); return given; }}",
            **private,
        ).then(fn=None, inputs=[self.answer], js=calling(clip_js, "created(...given)"), **private).then(**listing)
        self.listed.refresh(**listing)
        self.listed.use(fn=_use, outputs=[voices[0], tabs], **private)
        self.listed.forget(fn=self.forget, outputs=[self.answer], **private).then(
            fn=None, inputs=[self.answer], js=calling(f"{self._module}/voices.js", "forgotten(...given)"), **private
        ).then(**listing)

    async def list(self) -> list[Any]:
        """The list's value and each dropdown's choices; when the server is away everything stays as it was."""
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

    async def make(self, clip: str | None, name: str, consent: bool) -> dict[str, Any]:
        """A voice from the clip, or the error in words."""
        if clip is None:
            return {"message": "Record or upload a clip first.", "field": "clip"}
        try:
            voice = await self._client.voices.create(name, Path(clip), consent=consent)
        except mynah.MynahError as error:
            return explain(error)
        except OSError:
            return {"message": "The recording is not here any more. Upload it again.", "field": "clip"}
        return {"made": voice.voice_id, "name": voice.name}

    async def forget(self, event: gr.EventData) -> dict[str, Any]:
        """Delete the voice that the event names."""
        try:
            await self._client.voices.delete(str(event.id))
        except mynah.MynahError as error:
            return explain(error)
        return {"forgotten": str(event.name)}


def _use(event: gr.EventData) -> list[Any]:
    return [gr.update(value=str(event.id)), gr.Tabs(selected="speak")]
