"""The page's parts without a browser: error messages, stored recordings, events, flags."""

from __future__ import annotations

import asyncio
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest

import mynah
from mynah import (
    AudioChunk,
    InvalidArgument,
    NotFound,
    SegmentDone,
    SegmentStarted,
    ServerBusy,
    Unavailable,
    WindowFigures,
)
from ui.config import ConfigError, PageConfig, read_config
from ui.error_messages import error_message
from ui.page import STATIC, Page
from ui.recordings import FORMATS, MAX_RECORDING_BYTES, Recordings
from ui.speaking import _Relay


def test_errors_name_their_field_and_say_whether_to_retry():
    details = {"reason": "SAMPLING_OUT_OF_RANGE", "field": "sampling.top_p", "value": "7", "allowed": "(0, 1]"}
    shown = error_message(InvalidArgument("sampling.top_p is 7; it must be above 0 and at most 1.", **details))
    assert shown["message"] == "Top p is 7; it must be above 0 and at most 1."
    assert (shown["field"], shown["retryable"]) == ("top_p", False)
    busy = error_message(ServerBusy("", reason="STREAMS_EXHAUSTED", retry_after_s=1.0))
    assert busy["message"] == "The speech server is busy: all of its streams are in use. Try again in a moment."
    assert busy["field"] == ""
    assert error_message(NotFound("", reason="VOICE_NOT_FOUND"))["field"] == "voice"
    assert error_message(InvalidArgument("", reason="AUDIO_SILENT", field="audio"))["field"] == "clip"


def test_an_unknown_error_is_shown_with_the_server_s_message():
    assert error_message(Unavailable("the lights went out", reason="SOMETHING_NEW"))["message"] == (
        "The speech server reports: the lights went out"
    )


def test_no_event_runs_code_on_the_server():
    events = Page("").blocks.get_config_file()["dependencies"]
    assert len(events) == 5
    assert [event["targets"] for event in events if event["backend_fn"] or event["queue"]] == []


def test_recordings_are_stored_up_to_a_limit_with_unguessable_ids():
    recordings = Recordings(max_bytes=100)
    first, second = recordings.add(24_000, bytes(60)), recordings.add(24_000, b"\1\0" * 20)
    assert recordings.get(first) is not None
    third = recordings.add(8_000, bytes(40))
    assert recordings.get(first) is None
    kept, eight = recordings.get(second), recordings.get(third)
    assert kept is not None
    assert eight is not None
    assert (kept[0], eight[0]) == (24_000, 8_000)
    assert np.array_equal(kept[1], np.ones(20, np.int16))
    assert recordings.get("") is None
    assert len({len(name) for name in (first, second, third)}) == 1
    assert len(first) > 20


@pytest.mark.parametrize("extension", FORMATS)
def test_a_recording_is_encoded_at_its_length_and_rate(extension: str):
    import soundfile

    tone = (12_000 * np.sin(np.arange(24_000 * 3) * 0.05)).astype("<i2")
    recordings = Recordings()
    recording = recordings.get(recordings.add(24_000, tone.tobytes()))
    assert recording is not None
    samples, rate_hz = soundfile.read(io.BytesIO(recording.encoded(extension)))
    assert rate_hz == 24_000
    assert abs(len(samples) - len(tone)) < 3000
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(12_000 / 32768 / np.sqrt(2), rel=0.05)


def test_a_recording_that_is_too_long_is_not_kept():
    relay = _Relay(Socket(), mynah.Client(), Recordings())  # type: ignore[arg-type]
    for _ in range(3):
        relay._keep(bytes(MAX_RECORDING_BYTES // 2))
    assert relay._pcm == b""


def test_recordings_that_are_being_made_share_a_bound():
    recordings = Recordings()
    live = [bytearray() for _ in range(5)]
    assert [recordings.grow(one, bytes(MAX_RECORDING_BYTES)) for one in live] == [True] * 4 + [False]
    recordings.release(live[0])
    assert recordings.grow(live[4], bytes(10))


def test_flags_become_one_config():
    flags = ["--server", "[::1]:5", "--listen", "[::]:80", "--root-path", "/a/b", "--server-ca", "ca.pem"]
    config = read_config([*flags, "--allowed-host", "a.example", "--allowed-host", "b.example"])
    assert config.allowed_host == ("a.example", "b.example")
    assert (config.host, config.port, config.root_path) == ("::", 80, "/a/b")
    assert config.tls == PageConfig(server_ca=Path("ca.pem")).tls
    assert PageConfig().tls is False


def test_the_api_key_comes_from_a_file_or_the_environment(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("secret\n")
    assert PageConfig(api_key_file=file).api_key({"MYNAH_API_KEY": "other"}) == "secret"
    assert PageConfig().api_key({"MYNAH_API_KEY": "other"}) == "other"
    assert PageConfig().api_key({}) is None
    with pytest.raises(ConfigError, match="api-key-file"):
        PageConfig(api_key_file=tmp_path / "none").api_key({})


@pytest.mark.parametrize(
    "flags",
    [
        ["--server", "nowhere"],
        ["--listen", "host:99999"],
        ["--root-path", "a"],
        ["--tls-key", "k"],
        ["--hue", "red"],
        ["--allowed-host", "http://a"],
    ],
)
def test_a_bad_flag_is_refused(flags: list[str]):
    with pytest.raises(ConfigError):
        read_config(flags)


class Socket:
    """Records what is sent to a browser."""

    def __init__(self) -> None:
        self.texts: list[dict[str, object]] = []
        self.data: list[bytes] = []

    async def send_text(self, text: str) -> None:
        self.texts.append(json.loads(text))

    async def send_bytes(self, data: bytes) -> None:
        self.data.append(data)


def names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def test_events_reach_the_browser_with_all_fields_of_the_client_s():
    socket = Socket()
    relay = _Relay(socket, mynah.Client(), Recordings())  # type: ignore[arg-type]
    window = WindowFigures(0, 25, 30, 0.01, 0.2)
    done = SegmentDone(0, 0, 960, False, False, 1, 1, 0.1, 0.1, 0.1, 0.0, None, 0, 0.0, 5)

    async def forward() -> None:
        for event in (AudioChunk(0, 0, 0, 2, b"\1\0\2\0", window), SegmentStarted(0, 0, "Hi.", 2, 3), done):
            await relay._forward(event)

    with ThreadPoolExecutor() as pool:  # Playwright's event loop may run in this thread
        pool.submit(asyncio.run, forward()).result()
    chunk, started, ended = socket.texts
    assert socket.data == [b"\1\0\2\0"]
    assert chunk.keys() == (names(AudioChunk) - {"data"}) | {"type"}
    assert chunk["window"] == asdict(window)
    assert started.keys() == names(SegmentStarted) | {"type"}
    assert ended == {"type": "segment_done", **asdict(done)}


def test_the_browser_s_code_uses_only_fields_of_the_events():
    code = "".join((STATIC / "player" / name).read_text() for name in ("recording.js", "timeline.js"))
    known = names(AudioChunk) | names(SegmentStarted) | names(SegmentDone)
    assert set(re.findall(r"\bevent\.(?!window\b)(\w+)", code)) <= known
    assert set(re.findall(r"\bwindow\.(\w+)", code)) <= names(WindowFigures)
