"""Tests of reference audio: common formats decode alike; other input is refused quickly, in bounded memory."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.audio import resample
from engines.conditioning import reference
from engines.conditioning.limits import MAX_REFERENCE_BYTES
from engines.conditioning.reference import load_reference
from engines.errors import InvalidInput
from tests.clips import speech, wav_bytes
from tests.engines.conditioning import media

RATES_HZ = (8_000, 22_050, 44_100, 48_000)
LOSSLESS = [("wav", "pcm_s16le"), ("wav", "pcm_s24le"), ("wav", "pcm_f32le"), ("flac", "flac"), ("aiff", "pcm_s16be")]
LOSSY = [
    ("mp3", "libmp3lame", 22_050),
    ("mp3", "libmp3lame", 44_100),
    ("ogg", "libopus", 8_000),
    ("ogg", "libopus", 48_000),
    ("webm", "libopus", 48_000),
    ("wav", "pcm_mulaw", 8_000),
    ("wav", "pcm_u8", 44_100),
]
# these begin with the encoder's delay, so only length and level can be compared
DELAYED = [("mp4", "aac", 44_100), ("adts", "aac", 16_000), ("asf", "wmav2", 44_100), ("matroska", "ac3", 48_000)]


def clip(rate_hz: int, duration_s: float = 5.5) -> np.ndarray:
    samples, spoken_hz = speech(duration_s)
    return resample(samples, spoken_hz, rate_hz)


def stereo(samples: np.ndarray) -> np.ndarray:
    return np.stack([samples, 0.5 * samples])


def refused(audio: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        load_reference(audio)
    assert caught.value.field == "audio"
    assert caught.value.allowed
    return caught.value


def error_db(actual: np.ndarray, expected: np.ndarray) -> float:
    assert len(actual) == len(expected)
    return 10 * np.log10(np.sum((actual - expected) ** 2) / np.sum(expected**2) + 1e-20)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize(("container", "codec"), LOSSLESS)
def test_lossless_formats_decode_exactly(container: str, codec: str, rate_hz: int) -> None:
    samples = clip(rate_hz)
    expected = resample(samples, rate_hz, 24_000)
    assert error_db(load_reference(media.encode(container, codec, rate_hz, samples[None])).samples, expected) < -80
    both = load_reference(media.encode(container, codec, rate_hz, stereo(samples)))
    assert error_db(both.samples, 0.75 * expected) < -80, "channels are averaged"
    assert both.source == f"{codec} {rate_hz} Hz"


@pytest.mark.parametrize(("container", "codec", "rate_hz"), LOSSY)
def test_lossy_formats_decode_closely(container: str, codec: str, rate_hz: int) -> None:
    samples = clip(rate_hz)
    audio = media.encode(container, codec, rate_hz, stereo(samples), bit_rate=128_000)
    assert error_db(load_reference(audio).samples, 0.75 * resample(samples, rate_hz, 24_000)) < -20


@pytest.mark.parametrize(("container", "codec", "rate_hz"), DELAYED)
def test_delayed_formats_keep_length_and_level(container: str, codec: str, rate_hz: int) -> None:
    samples = clip(rate_hz)
    decoded = load_reference(media.encode(container, codec, rate_hz, samples[None], bit_rate=128_000))
    assert decoded.duration_s == pytest.approx(5.5, abs=0.2)
    assert np.sum(decoded.samples**2) == pytest.approx(np.sum(resample(samples, rate_hz, 24_000) ** 2), rel=0.1)


@pytest.mark.parametrize("codec", ["pcm_s16le", "flac"])
def test_six_channels_are_averaged(codec: str) -> None:
    samples = clip(16_000)
    planes = np.stack([samples * gain for gain in np.arange(1, 7, dtype=np.float32) / 7])
    decoded = load_reference(media.encode("wav" if codec != "flac" else codec, codec, 16_000, planes)).samples
    assert error_db(decoded, 0.5 * resample(samples, 16_000, 24_000)) < -60


@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("mp4", "aac")])
def test_eight_channels_are_refused(container: str, codec: str) -> None:
    planes = np.stack([clip(48_000)] * 8)
    error = refused(media.encode(container, codec, 48_000, planes))
    assert (error.reason, error.value) == ("AUDIO_NOT_DECODABLE", "it has 8 channels, more than 6")


def test_empty_audio_is_refused() -> None:
    assert refused(b"").reason == "AUDIO_EMPTY"


@pytest.mark.parametrize("audio", [b"\0" * 5000, b"RIFF", b"hello, world. " * 400, b"\x89PNG\r\n\x1a\n" + b"\0" * 99])
def test_other_data_is_not_decodable(audio: bytes) -> None:
    error = refused(audio)
    assert error.reason == "AUDIO_NOT_DECODABLE"
    assert f"{len(audio)} bytes" in error.value


def test_pictures_and_silent_films_are_not_decodable() -> None:
    assert refused(media.png(64, 64)).reason == "AUDIO_NOT_DECODABLE"
    film = refused(media.with_cover(media.png(16, 16), None))
    assert (film.reason, film.value) == ("AUDIO_NOT_DECODABLE", "it has no audio stream, only video")


@pytest.mark.parametrize(("duration_s", "ok"), [(0.5, False), (5.0, False), (5.001, True)])
def test_five_seconds_are_too_short_and_a_millisecond_more_is_not(duration_s: float, ok: bool) -> None:
    audio = wav_bytes(*speech(duration_s))
    if ok:
        assert load_reference(audio).duration_s == pytest.approx(duration_s, abs=1e-4)
    else:
        error = refused(audio)
        assert (error.reason, error.value) == ("AUDIO_TOO_SHORT", f"{duration_s:.2f} s")


def test_two_minutes_are_allowed_and_one_sample_more_is_not() -> None:
    whole = np.tile(clip(8_000), 22)[: 120 * 8_000]
    assert load_reference(media.encode("wav", "pcm_s16le", 8_000, whole[None])).duration_s == 120.0
    more = np.append(whole, whole[:1])
    assert refused(media.encode("wav", "pcm_s16le", 8_000, more[None])).reason == "AUDIO_TOO_LONG"


@pytest.mark.parametrize("level", [0.0, 1e-5, 2e-4])
def test_silence_is_refused_with_its_level(level: float) -> None:
    samples = clip(16_000) * np.float32(level)
    error = refused(media.encode("wav", "pcm_f32le", 16_000, samples[None]))
    assert error.reason == "AUDIO_SILENT"
    assert "LUFS" in error.value


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e20])
def test_non_finite_and_huge_samples_are_not_decodable(bad: float) -> None:
    samples = clip(16_000).copy()
    samples[40_000] = bad
    assert refused(media.encode("wav", "pcm_f32le", 16_000, samples[None])).reason == "AUDIO_NOT_DECODABLE"


@pytest.mark.parametrize(
    ("offset", "field", "value"),
    [
        (24, struct.pack("<I", 1), "1 Hz"),
        (24, struct.pack("<I", 2**31 - 1), "2147483647 Hz"),
        (22, struct.pack("<H", 64), "64 channels"),
    ],
)
def test_headers_with_absurd_rates_and_channels_are_refused(offset: int, field: bytes, value: str) -> None:
    audio = bytearray(wav_bytes(*speech(5.5)))
    audio[offset : offset + len(field)] = field
    if value.endswith("channels"):
        audio[32:34] = struct.pack("<H", 2 * 64)
    error = refused(bytes(audio))
    assert error.reason == "AUDIO_NOT_DECODABLE"
    assert value in error.value


def test_a_truncated_file_is_decoded_up_to_its_end() -> None:
    samples = clip(16_000, 8.0)
    audio = media.encode("flac", "flac", 16_000, samples[None])
    decoded = load_reference(audio[: len(audio) * 3 // 4])
    assert 5.0 < decoded.duration_s < 8.0
    assert refused(audio[: len(audio) // 3]).reason == "AUDIO_TOO_SHORT"


def test_a_rate_that_changes_midway_is_refused() -> None:
    parts = [media.encode("mp3", "libmp3lame", rate, clip(rate)[None]) for rate in (16_000, 24_000)]
    error = refused(parts[0] + parts[1])
    assert error.reason == "AUDIO_NOT_DECODABLE"
    assert "changes" in error.value


def test_references_to_files_and_addresses_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim.wav"
    victim.write_bytes(wav_bytes(*speech(5.5)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/clip.wav"
        monkeypatch.chdir(tmp_path)  # by default FFmpeg follows a list of relative names
        for target in ("victim.wav", str(victim), f"file://{victim}", address):
            for text in (
                f"ffconcat version 1.0\nfile '{target}'\n",
                f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
                f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nt=0 0\na=control:{target}\nm=audio 5004 RTP/AVP 0\n",
                target,
            ):
                assert refused(text.encode()).reason == "AUDIO_NOT_DECODABLE"
        with pytest.raises(BlockingIOError):
            server.accept()


_MEASURE = """
import json, re, sys, time
from pathlib import Path
from engines.errors import InvalidInput
from engines.conditioning.reference import load_reference

def memory_mb(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1)) / 1024

load_reference(Path(sys.argv[1]).read_bytes())
results = []
for path in sys.argv[2:]:
    audio = Path(path).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before_mb, start_s = memory_mb("VmRSS"), time.process_time()
    try:
        outcome = f"{load_reference(audio).duration_s:.1f} s"
    except InvalidInput as error:
        outcome = error.reason
    results.append([outcome, memory_mb("VmHWM") - before_mb, time.process_time() - start_s])
print(json.dumps(results))
"""


def test_bombs_are_refused_quickly_and_in_little_memory(tmp_path: Path) -> None:
    """Measures each file's peak memory in a subprocess."""
    silence = np.zeros((6, 121 * 16_000), np.float32)
    bombs = {
        "silence": (media.encode("mp3", "libmp3lame", 16_000, silence[:1]) * 9, "AUDIO_TOO_LONG"),
        "six channels": (media.encode("flac", "flac", 16_000, silence), "AUDIO_TOO_LONG"),
        "inflating header": (media.compressed_header(128 * 2**20), "AUDIO_TOO_LARGE"),
        "cover picture": (media.with_cover(media.png(8000, 8000), clip(16_000)[None]), "5.5 s"),
        "bytes": (bytes(MAX_REFERENCE_BYTES + 1), "AUDIO_TOO_LARGE"),
    }
    good = tmp_path / "good.wav"
    good.write_bytes(wav_bytes(*speech(5.5)))
    paths = []
    for name, (audio, _) in bombs.items():
        assert len(audio) <= MAX_REFERENCE_BYTES + 1, name
        paths.append(tmp_path / name)
        paths[-1].write_bytes(audio)
    command = [sys.executable, "-c", _MEASURE, good, *paths]
    results = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)
    for (name, (_, expected)), (outcome, grown_mb, cpu_s) in zip(bombs.items(), results, strict=True):
        assert outcome == expected, name
        assert grown_mb < 80, f"{name} took {grown_mb:.0f} MB"
        assert cpu_s < 5, f"{name} took {cpu_s:.1f} s"


@settings(max_examples=150, deadline=None)
@given(audio=st.binary(max_size=4000))
def test_random_bytes_are_refused(audio: bytes) -> None:
    refused(audio)


MAGIC = (
    b"RIFF\xff\xff\xff\x7fWAVEfmt ",
    b"fLaC",
    b"OggS\0\x02",
    b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\0",
    b"\0\0\0\x20ftypM4A ",
    b"\x1a\x45\xdf\xa3",
    b"FORM\0\0\xff\xffAIFFCOMM",
    b"caff\0\x01\0\0",
    b"#!AMR\n",
    b".snd",
    b"MAC \x96\x0f",
    b"wvpk",
    b"TTA1",
    b"\x30\x26\xb2\x75",
)


def _decoded_or_refused(audio: bytes) -> None:
    with suppress(InvalidInput):
        decoded = load_reference(audio)
        assert 5.0 < decoded.duration_s <= reference.MAX_REFERENCE_S
        assert np.isfinite(decoded.samples).all()


@settings(max_examples=150, deadline=None)
@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=2000))
def test_garbage_after_a_known_magic_raises_nothing_else(magic: bytes, rest: bytes) -> None:
    _decoded_or_refused(magic + rest)


@pytest.fixture(scope="module")
def originals() -> list[bytes]:
    samples = clip(16_000)[None]
    kinds = [("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus"), ("mp4", "aac")]
    return [media.encode(container, codec, 16_000, samples) for container, codec in kinds]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.integers(0, 4),
    cut=st.floats(0.0, 1.0),
    patches=st.lists(st.tuples(st.floats(0.0, 1.0), st.binary(min_size=1, max_size=40)), max_size=6),
    header=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
)
def test_damaged_files_raise_nothing_else(originals: list[bytes], kind: int, cut: float, patches, header) -> None:
    audio = bytearray(originals[kind])
    for position, value in header:
        audio[position] = value
    for place, garbage in patches:
        start = int(place * len(audio))
        audio[start : start + len(garbage)] = garbage
    _decoded_or_refused(bytes(audio[: int(cut * len(audio)) + 1]))
