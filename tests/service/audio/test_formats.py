"""Every format at every rate, decoded by FFmpeg: length, SNR and delay as documented, and cancels."""

from __future__ import annotations

import asyncio
import audioop
import io
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.fake import FakeEngine, Script
from engines.model_spec import SAMPLES_PER_TOKEN
from mynah.client.events import AudioChunk
from service.audio.codecs import Packet, a_law, mu_law
from service.audio.encoder import Encoder
from service.audio.flac import Flac
from service.audio.formats import AudioFormat, AudioSettings
from service.audio.ogg import OggOpus
from service.audio.webm import WebmOpus
from tests.clips import speech
from tests.service.audio.decoding import decode, snr_db
from tests.service.stream.sessions import Received, session, speak

EVERY = [AudioSettings(each, rate_hz) for each in AudioFormat for rate_hz in each.rates_hz]
PRIMING_SAMPLES = {AudioFormat.MP3: 1105, AudioFormat.AAC: 1024}
WHOLE_FRAMES = {AudioFormat.OGG_OPUS, AudioFormat.WEBM_OPUS, *PRIMING_SAMPLES}
SHORT = "Something shorter."
DOCUMENT = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()


def name(audio: AudioSettings) -> str:
    return f"{audio.audio_format.value}-{audio.sample_rate_hz}"


every = pytest.mark.parametrize("audio", EVERY, ids=name)


def lookahead_samples(audio: AudioSettings) -> int:
    """Opus's lookahead, which a decoder drops once, at the beginning of the stream."""
    return 312 * audio.sample_rate_hz // 48_000 if audio.audio_format.priming_is_skipped else 0


def table(title: str) -> dict[tuple[str, int], float]:
    """(format, rate) -> the figure in the table of docs/formats.md whose first heading is `title`."""
    head, *rows = re.search(rf"(^\| {title}.*\n)\|-.*\n((?:\|.*\n)+)", DOCUMENT, re.M).expand(r"\1\2").splitlines()
    rates = [int(cell.split()[0]) for cell in head.split("|")[2:-1]]
    figures = {}
    for row in rows:
        names, *cells = [cell.strip() for cell in row.split("|")[1:-1]]
        for rate_hz, cell in zip(rates, cells, strict=True):
            if cell != "-":
                figures |= {(each, rate_hz): float(cell) for each in re.findall(r"`(\w+)`", names)}
    return figures


def min_snr_db() -> dict[str, float]:
    rows = re.findall(r"^\| (`.*?) \|.*\| (\d+) \|$", DOCUMENT.split("## Delay")[0], re.M)
    return {each: float(figure) for names, figure in rows for each in re.findall(r"`(\w+)`", names)}


@lru_cache(maxsize=1)
def words() -> np.ndarray:
    samples, rate_hz = speech(6.0)
    at_24 = soxr.resample(samples, rate_hz, 24_000)
    return (at_24 / np.abs(at_24).max() * 0.7).astype(np.float32)[: 150 * SAMPLES_PER_TOKEN]


def encoded(audio: AudioSettings, segments: list[list[np.ndarray]]) -> tuple[bytes, list[int]]:
    """Encodes a stream; returns its bytes, and the samples declared for each segment."""
    encoder, writer = Encoder(audio), audio.writer()
    data, declared = b"", []
    for pieces in segments:
        results = [*map(encoder.encode, pieces), encoder.end_segment()]
        assert all(bool(each.packets) == bool(each.samples) for each in results)
        data += b"".join(writer.write(each.packets) for each in results if each.samples)
        declared.append(sum(each.samples for each in results))
    return data, declared


@every
def test_the_decoded_audio_is_as_long_as_declared_and_close_to_the_original(audio: AudioSettings):
    pieces = np.split(words(), [9_600, 24_000, 48_001])
    data, declared = encoded(audio, [pieces, pieces])
    decoded = decode(data, audio)
    assert len(decoded) == sum(declared)
    original = words() if audio.sample_rate_hz == 24_000 else soxr.resample(words(), 24_000, audio.sample_rate_hz)
    before = PRIMING_SAMPLES.get(audio.audio_format, 0)
    for start in (before, declared[0] + before + lookahead_samples(audio)):
        assert snr_db(original, decoded[start : start + len(original)]) > min_snr_db()[audio.audio_format.value]


@every
def test_the_encoders_delay_is_as_documented(audio: AudioSettings):
    step = 24  # 1 ms
    encoder = Encoder(audio)
    in_ms = held_ms = 0.0
    out = -PRIMING_SAMPLES.get(audio.audio_format, 0)
    for piece in np.split(words()[:36_000], range(step, 36_000, step)):
        in_ms += 1
        out += encoder.encode(piece).samples
        held_ms = max(held_ms, in_ms - out * 1000 / audio.sample_rate_hz)
    stated_ms = table("held back")[audio.audio_format.value, audio.sample_rate_hz]
    assert stated_ms - 2 < held_ms <= stated_ms


@every
def test_segments_gain_no_more_silence_than_documented(audio: AudioSettings):
    gained_ms = []
    for tokens in range(1, 40):
        encoder = Encoder(audio, at_start=False)
        samples = encoder.encode(np.zeros(tokens * SAMPLES_PER_TOKEN, np.float32)).samples
        samples += encoder.end_segment().samples
        gained_ms.append((samples - tokens * audio.sample_rate_hz // 25) * 1000 / audio.sample_rate_hz)
    if audio.audio_format in WHOLE_FRAMES:
        stated_ms = table("silence at")[audio.audio_format.value, audio.sample_rate_hz]
        assert min(gained_ms) >= 0
        assert stated_ms - 1 < max(gained_ms) <= stated_ms
    else:
        assert set(gained_ms) == {0}


@pytest.mark.parametrize("audio_format", [each for each in AudioFormat if each.takes_time])
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_the_audio_does_not_depend_on_the_cuts_between_chunks(audio_format: AudioFormat, data: st.DataObject):
    audio = AudioSettings(audio_format)
    samples = words()[:24_000]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(samples)), max_size=6)))
    whole, declared = encoded(audio, [[samples]])
    pieces, also_declared = encoded(audio, [np.split(samples, cuts)])
    assert declared == also_declared
    np.testing.assert_array_equal(decode(whole, audio), decode(pieces, audio))


@pytest.mark.parametrize("audio_format", list(AudioFormat), ids=lambda each: each.value)
def test_a_segment_does_not_depend_on_the_one_before(audio_format: AudioFormat):
    audio = AudioSettings(audio_format, audio_format.default_rate_hz)

    def packets(*segments: np.ndarray) -> list[tuple[Packet, ...]]:
        encoder = Encoder(audio)
        return [encoder.encode(segment).packets + encoder.end_segment().packets for segment in segments]

    assert packets(words()[4_800:9_600], words()[:24_000])[1] == packets(words()[:24_000])[0]


def received_with_a_cancel(audio: AudioSettings, chunks_before: int) -> Received:
    """Cancels a long text after `chunks_before` chunks were read, then speaks a short one."""

    async def conversation() -> Received:
        async with session(FakeEngine(Script(first_hop_tokens=7, hop_tokens=9)), audio, send_queue_events=3) as one:
            received = Received()
            one.write("This sentence is never heard to its end, because somebody else begins to speak. ")
            one.flush(1)
            for _ in range(chunks_before):
                await received.read_until(one, AudioChunk)
            await one.cancel()
            one.write(SHORT)
            one.end()
            return await received.read(one)

    return asyncio.run(conversation())


@pytest.mark.parametrize("audio_format", list(AudioFormat), ids=lambda each: each.value)
@pytest.mark.parametrize("chunks_before", [0, 1, 4])
def test_after_a_cancel_the_stream_is_still_one_file(audio_format: AudioFormat, chunks_before: int):
    audio = AudioSettings(audio_format, audio_format.default_rate_hz)
    received = received_with_a_cancel(audio, chunks_before)
    received.check_gapless()
    (cancelled,) = received.cancelled
    before = [event for event in received.events[: received.events.index(cancelled)] if isinstance(event, AudioChunk)]
    assert cancelled.delivered_samples == sum(chunk.samples for chunk in before)
    decoded = decode(received.data, audio)
    assert len(decoded) == sum(chunk.samples for chunk in received.audio)
    alone = decode(asyncio.run(speak(FakeEngine(), SHORT, audio)).data, audio)
    assert len(decoded) - cancelled.delivered_samples - len(alone) in (0, lookahead_samples(audio))
    forget = audio.sample_rate_hz * 80 // 1000 if audio_format in WHOLE_FRAMES else 0  # their decoders remember
    assert snr_db(alone[forget:], decoded[-len(alone) + forget :]) > 20, "the new text and nothing of the old"


def frames_of(data: bytes, audio_format: str | None = None) -> list[tuple[int, int]]:
    """(time in samples at 48 kHz, bytes) of each packet that a demuxer finds."""
    with av.open(io.BytesIO(data), format=audio_format) as container:
        return [
            (round(packet.pts * packet.time_base * 48_000), packet.size)
            for packet in container.demux()
            if packet.pts is not None
        ]


@pytest.mark.parametrize("writer", [OggOpus, WebmOpus])
def test_time_goes_on_from_page_to_page_and_from_cluster_to_cluster(writer: type[OggOpus | WebmOpus]):
    encoder = Encoder(AudioSettings(AudioFormat.OGG_OPUS, 48_000))
    packets = encoder.encode(np.tile(words(), 7)).packets  # 42 s: several pages in a write, more than a cluster holds
    written = writer(48_000)
    data = written.write(packets[:3]) + written.write(packets[3:])
    times = [time for time, _ in frames_of(data)]
    assert len(times) == len(packets)
    assert all(after - before == 960 for before, after in pairwise(times))


@given(lengths=st.lists(st.integers(0, 1400), min_size=1, max_size=600))
@settings(max_examples=20, deadline=None)
def test_ogg_pages_hold_packets_of_any_length(lengths: list[int]):
    packets = [Packet(bytes(max(length, 1)), 480) for length in lengths]
    sizes = [size for _, size in frames_of(OggOpus(24_000).write(packets))]
    assert sizes == [len(packet.data) for packet in packets]


@pytest.mark.parametrize("seconds", [0, 3, 90, 1500, 40_000])  # FFmpeg reads numbers below 2^31
def test_flac_frames_are_numbered_in_streams_of_any_length(seconds: int):
    writer = Flac(48_000, 960)
    first, *rest = Encoder(AudioSettings(AudioFormat.FLAC, 48_000)).encode(words()[:9_600]).packets
    long = Packet(first.data, 48_000 * seconds)
    data = writer.write([long]) + writer.write(rest)
    assert [time for time, _ in frames_of(data, "flac")][1] == long.samples
    assert len(decode(data, AudioSettings(AudioFormat.FLAC, 48_000))) == 960 * (1 + len(rest))


@pytest.mark.parametrize(("oracle", "law"), [(audioop.lin2ulaw, mu_law()), (audioop.lin2alaw, a_law())])
def test_g711_is_the_standard_librarys(oracle: Callable[[bytes, int], bytes], law: np.ndarray):
    every_sample = np.arange(65536, dtype=np.uint16)
    assert law.tobytes() == oracle(every_sample.tobytes(), 2)
