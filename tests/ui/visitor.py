"""A visitor of the page: a browser window that records sounds, errors and requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Locator, Page

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
]

# A probe beside the page's code: the arrivals of binary messages, the starts of buffers, the level of the sound.
_PROBE = """
window.ear = { arrivals: [], starts: [], contexts: [] };
const onmessage = Object.getOwnPropertyDescriptor(WebSocket.prototype, "onmessage");
Object.defineProperty(WebSocket.prototype, "onmessage", { set(handle) {
  onmessage.set.call(this, (event) => {
    if (typeof event.data !== "string") ear.arrivals.push(performance.now());
    handle.call(this, event);
  });
} });
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when = 0, ...rest) {
  const wait_ms = Math.max(0, when - this.context.currentTime) * 1000;
  ear.starts.push({ at: performance.now() + wait_ms, wait_ms, when, duration: this.buffer?.duration });
  return start.call(this, when, ...rest);
};
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to, ...rest) {
  if (to instanceof AudioDestinationNode && !(this.context instanceof OfflineAudioContext)) {
    if (!ear.contexts.includes(this.context)) {
      ear.contexts.push(this.context);
      ear.analyser = new AnalyserNode(this.context, { fftSize: 256 });
      // A script processor's clock is late if the page is busy, so the audio clock is recorded as a second channel.
      const clock = new ConstantSourceNode(this.context, { offset: 0 });
      clock.offset.setValueAtTime(0, 0).linearRampToValueAtTime(1e4, 1e4); // seconds
      clock.start();
      const both = new ChannelMergerNode(this.context, { numberOfInputs: 2 });
      connect.call(ear.analyser, both, 0, 0);
      connect.call(clock, both, 0, 1);
      ear.drum = this.context.createScriptProcessor(256, 2, 1);
      ear.drum.onaudioprocess = ({ inputBuffer }) => {
        const last = inputBuffer.getChannelData(0).findLastIndex((one) => one !== 0);
        if (last >= 0) ear.lastSound_s = inputBuffer.getChannelData(1)[last];
      };
      connect.call(both, ear.drum);
      connect.call(ear.drum, this.context.destination);
    }
    connect.call(this, ear.analyser);
  }
  return connect.call(this, to, ...rest);
};
ear.level = () => {
  const samples = new Float32Array(256);
  ear.analyser?.getFloatTimeDomainData(samples);
  return samples.reduce((max, one) => Math.max(max, Math.abs(one)), 0);
};
"""


@contextmanager
def window(browser: Browser, **options: Any) -> Iterator[Page]:
    """An empty window in a new context, with the probe."""
    with browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options}) as context:
        context.set_default_timeout(240_000)  # a wait measures nothing: a busy machine is no failure
        context.add_init_script(_PROBE)
        yield context.new_page()


def _lost_socket(complaint: str) -> bool:
    """Whether the browser lost a new connection before it used it, as on a busy machine; it makes another one."""
    return complaint.endswith("net::ERR_SOCKET_NOT_CONNECTED")


class Visitor:
    """An open page. `complaints` are console errors, failed requests and requests to other hosts."""

    def __init__(self, window: Page, url: str) -> None:
        self.url = url
        self.context = window.context
        self.complaints: list[str] = []
        self.page = window
        self._listening = {
            "console": lambda line: self._note(line.type == "error" and not _lost_socket(line.text), line.text),
            "pageerror": lambda error: self._note(True, str(error)),
            "response": lambda answer: self._note(answer.status >= 400, f"{answer.status} {answer.url}"),
            "request": lambda request: self._note(not self._own_host(request.url), f"requested {request.url}"),
        }
        for event, note in self._listening.items():
            self.page.on(event, note)
        self.page.goto(url)
        self.page.wait_for_selector("html[data-mynah=ready]")
        self.page.wait_for_selector(".pill[data-state]")

    @classmethod
    @contextmanager
    def on(cls, browser: Browser, url: str, **options: Any) -> Iterator[Visitor]:
        """A visit that must end without complaints."""
        with cls.unheld(browser, url, **options) as visitor:
            yield visitor
            visitor.leave()

    @classmethod
    @contextmanager
    def unheld(cls, browser: Browser, url: str, **options: Any) -> Iterator[Visitor]:
        """A visit during which the browser may complain, e.g. because a server goes away."""
        with window(browser, **options) as page:
            yield cls(page, url)

    def leave(self) -> None:
        """End the visit. Asserts that there were no complaints."""
        for event, note in self._listening.items():
            self.page.remove_listener(event, note)
        self.page.evaluate("localStorage.clear()")  # the next visitor of this window is another person
        self.page.goto("about:blank")
        assert not self.complaints, "\n".join(self.complaints)

    def _note(self, bad: bool, what: str) -> None:
        if bad:
            self.complaints.append(what)

    def expect_refusal(self) -> None:
        """Forget the complaints about an answer with status 400 from the routes of the voices, which the test made."""
        refused = f"400 {self.url}mynah/voices"
        about = [one for one in self.complaints if one.startswith((refused, "Failed to load resource"))]
        assert about, self.complaints
        self.complaints = [one for one in self.complaints if one not in about]

    def _own_host(self, url: str) -> bool:
        return url.startswith(("data:", "blob:")) or urlsplit(url).netloc == urlsplit(self.url).netloc

    def evaluate(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def wait(self, condition: str) -> None:
        self.page.wait_for_function(condition)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def write(self, text: str) -> None:
        self.page.get_by_label("Text", exact=True).fill(text)

    def speak(self, text: str | None = None) -> None:
        """Press Speak and wait for the first sound."""
        if text is not None:
            self.write(text)
        begun = self.press("Speak")
        self.wait(f"mynah.player.recordings.a?.firstSound && {begun}")

    def press(self, name: str) -> str:
        """Press a button that begins a recording and wait for its begin. Returns what is true from then on.

        An earlier recording does not count, and one that is over before the browser is asked again does. A server that
        is busy with other streams says so, and the button is pressed again, as a person does.
        """
        busy = "[...document.querySelectorAll('.field-error')].some(error => error.textContent.includes('is busy'))"
        while True:
            pressed_s = self.evaluate("performance.now() / 1000")
            begun = f"mynah.player.recordings.a?.started > {pressed_s}"
            self.button(name).click()
            self.wait(f"{begun} || {busy}")
            if self.evaluate(begun):
                return begun
            self.page.wait_for_timeout(500)

    def finished(self, name: str = "a") -> None:
        """Wait until the recording is complete."""
        self.wait(f"mynah.player.recordings.{name}?.running === false && !mynah.player.live")

    def recording(self, name: str = "a") -> dict[str, Any]:
        """Returns the page's data of a recording."""
        values: dict[str, Any] = self.evaluate(
            """name => { const { state, seed, length_s, words, segments, chunks, underruns, firstSound, startDelay_ms,
              tokens, windows } = mynah.player.recordings[name];
              return { state, seed, length_s, words, segments, chunks, underruns, firstSound, startDelay_ms, tokens,
              windows }; }""",
            name,
        )
        return values

    def samples(self, name: str = "a") -> list[int]:
        """Returns the samples of a recording as 16-bit integers."""
        script = "name => Array.from(mynah.player.recordings[name].samples, one => Math.round(one * 32768))"
        samples: list[int] = self.evaluate(script, name)
        return samples

    def expert(self) -> None:
        """Open the fold with the settings, the comparison and the figures."""
        fold = self.page.locator(".fold:enabled")
        if fold.get_attribute("aria-expanded") != "true":
            fold.click()

    def upload(self, clip: Path) -> None:
        """Choose a clip for a new voice."""
        self.page.locator("[data-do=choose]:enabled").wait_for()
        self.page.get_by_label("Audio file").set_input_files(clip)

    def choose_voice(self, name: str, settings: str = "a") -> None:
        self.page.locator(f"#voice-{settings} select").select_option(label=name)

    def take(self) -> Locator:
        """The newest recording in the list."""
        return self.page.locator(".takes li").first

    def open_tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def error(self, beside: str) -> str:
        """Returns the error message inside an element."""
        words = self.page.locator(f"{beside} .field-error")
        words.wait_for()
        assert words.get_attribute("role") == "alert"
        return words.inner_text()
