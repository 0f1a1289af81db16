"""Every metric changes as it should while a server on the fake engine speaks, and gauges return to zero."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Counter

import mynah
from engines.api import DeviceMemory
from engines.errors import EngineFailure
from engines.fake import Script
from service.audio.formats import AudioFormat, AudioSettings
from service.stream.stream_meter import StreamMeter
from service.telemetry import metrics
from service.telemetry.metrics import EngineMetrics
from tests.service.serving import REFERENCE, Serving, serving
from tests.service.telemetry.scraping import Page, scrape

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
SCRIPT = Script(token_s=0.002, decode_s=0.005, device_memory=DeviceMemory(3_000, 10_000))
TEXT = "Sixty tokens are what this sentence will have been made of.."  # 60 chars, a token each: windows of 10, 25, 25


async def admin_of(at: Serving) -> str:
    address = await at.server.start_admin()
    assert address is not None
    return address


def serving_metrics(**changed: object):
    args = {"script": SCRIPT, "observer": EngineMetrics(), "admin_listen": "127.0.0.1:0", "max_streams": 2, **changed}
    return serving(**args)  # type: ignore[arg-type]


async def speak(at: Serving, text: str = TEXT, **settings: object) -> str:
    """Speaks one text on a stream to its end; returns the stream's id."""
    async with at.client.stream(**settings) as stream:  # type: ignore[arg-type]
        await stream.send(text)
        await stream.end()
        assert sum([chunk.samples async for chunk in stream])
        return stream.opened.stream_id


async def eventful(at: Serving) -> str:
    """Speech, a cancel, a rejection and an error, once each. Returns the first stream's id."""
    first = await speak(at)
    async with at.client.stream() as stream:
        await stream.send(TEXT)
        await stream.flush()
        await anext(aiter(stream))
        await stream.cancel()
        async for event in stream.events():
            if isinstance(event, mynah.Cancelled):
                break
        async with at.client.stream():
            with pytest.raises(mynah.ServerBusy):
                await speak(at)
    await at.settled()
    with pytest.raises(mynah.NotFound):
        await speak(at, voice="nobody")
    await at.settled()
    return first


HELD = ("mynah_streams_active", "mynah_streams_offline", "mynah_t3_kv_cache_ratio", "mynah_t3_down", "mynah_stalled")
HELD += ("mynah_caller_streams_active", "mynah_uploads_active")
FACTS = {"mynah_streams_capacity", "mynah_gpu_memory_bytes", "mynah_engine_info", "mynah_engine_refused"}
FACTS |= {"mynah_build_info", "mynah_voice_files_damaged", "mynah_certificate_expiry_timestamp_seconds"}
FACTS |= {"mynah_voices_stored", "mynah_failed_captures"}


async def test_every_metric_changes():
    async with serving_metrics() as at:
        admin = await admin_of(at)
        before = await scrape(admin)
        await eventful(at)
        at.engine.observer.window_rejected("onnx")  # a fake engine's windows are never rejected
        after = await scrape(admin)
    grown = {
        name for name in after.types if after.types[name] in ("counter", "histogram") and has_grown(before, after, name)
    }
    expected = {family.name for metric in metrics.ALL for family in metric.describe()}
    gauges = {family.name for metric in metrics.ALL for family in metric.describe() if family.type == "gauge"}
    elsewhere = {"mynah_underrun_seconds", "mynah_underruns", "mynah_retries", "mynah_storage_errors"}
    elsewhere |= {"mynah_word_guard", "mynah_voice_changes", "mynah_voice_creation_seconds"}
    assert expected - gauges - grown <= elsewhere  # see below, and tests/faults
    assert gauges == FACTS | set(HELD)


def has_grown(before: Page, after: Page, name: str) -> bool:
    suffix = "_total" if after.types[name] == "counter" else "_count"
    return after(name + suffix) > before(name + suffix)


async def test_the_values_are_those_of_the_streams():
    async with serving_metrics() as at:
        admin = await admin_of(at)
        before = await scrape(admin)
        stream_id = await speak(at)
        after = await scrape(admin)

    def grew(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert grew("mynah_streams_admitted_total") == grew("mynah_ttfa_seconds_count") == 1
    assert grew("mynah_chunk_gap_seconds_count") == grew("mynah_buffer_lead_seconds_count") == 2
    assert grew("mynah_audio_seconds_total") == pytest.approx(60 * 0.04)
    assert grew("mynah_audio_sent_bytes_total", format="pcm_s16le") == 60 * 960 * 2
    assert grew("mynah_hop_tokens_count") == grew("mynah_batch_windows_count") == 3
    assert grew("mynah_hop_tokens_sum") == 60
    assert grew("mynah_t3_prompt_positions_total", source="read") == 60
    assert grew("mynah_t3_prompt_positions_total", source="cached") == 26
    assert grew("mynah_stage_seconds_sum", stage="flow") == pytest.approx(3 * 0.005)
    # 10 tokens x 2 ms + 5 ms; the rest is the overhead of the service and this machine
    assert 0.025 <= grew("mynah_ttfa_seconds_sum") < 0.5
    assert 0.135 / 2.4 <= grew("mynah_real_time_factor_ratio_sum") < 1
    for metric in (
        "mynah_ttfa_seconds_bucket",
        "mynah_t3_prefill_seconds_bucket",
        "mynah_window_decode_seconds_bucket",
    ):
        assert stream_id in after.exemplars[metric]
    assert after("mynah_streams_capacity") == 2
    assert after("mynah_gpu_memory_bytes", kind="used") == 3_000
    assert after("mynah_engine_info", model="fake", t3_runtime="fake") == 1
    assert after("mynah_build_info") == 1


async def test_rejections_errors_and_cancels_are_counted_by_reason():
    async with serving_metrics() as at:
        admin = await admin_of(at)
        before = await scrape(admin)
        await eventful(at)
        after = await scrape(admin)
    for name, labels in [
        ("mynah_streams_refused_total", {"reason": "STREAMS_EXHAUSTED"}),
        ("mynah_errors_total", {"reason": "STREAMS_EXHAUSTED"}),
        ("mynah_errors_total", {"reason": "VOICE_NOT_FOUND"}),
        ("mynah_cancels_total", {}),
    ]:
        assert after(name, **labels) - before(name, **labels) == 1, (name, labels)


async def test_streams_are_counted_by_who_asked_and_how_they_ended():
    who = {"surface": "grpc", "key": "anyone"}
    async with serving_metrics() as at:
        admin = await admin_of(at)
        before = await scrape(admin)
        await speak(at)
        async with at.client.stream() as stream:
            await stream.send(TEXT)
            await stream.flush()
            await anext(aiter(stream))
            assert (await scrape(admin))("mynah_caller_streams_active", **who) == 1
        await at.settled()
        after = await scrape(admin)

    def grew(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert grew("mynah_caller_streams_total", outcome="FINISHED", **who) == 1
    assert grew("mynah_caller_streams_total", outcome="CLIENT_GONE", **who) == 1
    assert grew("mynah_caller_audio_seconds_total", **who) >= 60 * 0.04
    assert grew("mynah_caller_ttfa_seconds_count", surface="grpc") == 2
    assert stream.opened.stream_id in after.exemplars["mynah_caller_ttfa_seconds_bucket"]


async def test_uploads_and_voices_are_counted():
    async with serving_metrics() as at:
        admin = await admin_of(at)
        before = await scrape(admin)
        made = await at.client.voices.create("Anna", REFERENCE, consent=True)
        with_voice = await scrape(admin)
        await at.client.voices.delete(made.voice_id)
        after = await scrape(admin)
    assert with_voice("mynah_voices_stored") == before("mynah_voices_stored") + 1 == after("mynah_voices_stored") + 1
    assert after("mynah_voice_creation_seconds_count") == before("mynah_voice_creation_seconds_count") + 1
    for change in ("created", "deleted"):
        name = "mynah_voice_changes_total"
        assert after(name, change=change) == before(name, change=change) + 1


async def test_gauges_show_open_streams_and_return_to_zero():
    async with serving_metrics() as at:
        admin = await admin_of(at)
        rest = {name: (await scrape(admin))(name) for name in HELD}
        async with at.client.stream() as stream:
            await stream.send(f"{TEXT} " * 20)  # more than is made for a reader who takes one chunk
            await stream.flush()
            await anext(aiter(stream))
            speaking = await scrape(admin)
            assert speaking("mynah_streams_active") == rest["mynah_streams_active"] + 1
            assert speaking("mynah_t3_kv_cache_ratio") == 0.5
        at.engine.health.set(False)
        assert (await scrape(admin))("mynah_t3_down") == 1
        at.engine.health.set(True)
        await at.settled()
        assert {name: (await scrape(admin))(name) for name in HELD} == rest == dict.fromkeys(HELD, 0)


async def test_a_retry_is_counted():
    once = Script(failure=EngineFailure("the device is gone"), failures=1)
    async with serving_metrics(script=once) as at:
        admin = await admin_of(at)
        before = await scrape(admin)
        await speak(at)
        after = await scrape(admin)
        assert after("mynah_retries_total") - before("mynah_retries_total") == 1
        assert after("mynah_errors_total") == before("mynah_errors_total")


async def test_gauges_return_to_zero_after_an_engine_failure():
    failing = Script(token_s=0.001, failure=EngineFailure("the device is gone"), fail_after_chunks=1)
    async with serving_metrics(script=failing) as at:
        admin = await admin_of(at)
        with pytest.raises(mynah.ServerError):
            await speak(at)
        await at.settled()
        page = await scrape(admin)
        assert [page(name) for name in HELD] == [0] * len(HELD)


def test_underruns_are_counted():
    meter = StreamMeter(AudioSettings(AudioFormat.PCM_S16LE, 8000), {"stream_id": "one"})
    underruns, silence_s, ttfa = (REGISTRY.get_sample_value(name) or 0.0 for name in DRY)
    meter.has_work(1.0)
    meter.sent(1.5, samples=800, size_bytes=1600)  # plays until 1.6
    meter.has_work(1.55)  # more of the same talkspurt
    meter.sent(1.9, samples=800, size_bytes=1600)  # 0.3 s of silence; plays until 2.0
    meter.went_idle()
    meter.has_work(5.0)  # silence until here, because there was no text
    meter.sent(5.25, samples=800, size_bytes=1600)
    assert REGISTRY.get_sample_value(DRY[0]) == underruns + 1
    assert REGISTRY.get_sample_value(DRY[1]) == pytest.approx(silence_s + 0.3)
    assert REGISTRY.get_sample_value(DRY[2]) == pytest.approx(ttfa + 0.5 + 0.25)


async def test_a_stream_without_a_listener_is_counted_apart_and_has_no_waits():
    async with serving_metrics() as at:
        admin = await admin_of(at)
        before = await scrape(admin)
        async with at.client.stream(schedule="offline") as stream:
            during = await scrape(admin)
            await stream.send(TEXT)
            await stream.end()
            assert sum([chunk.samples async for chunk in stream])
        assert (during("mynah_streams_offline"), during("mynah_streams_active")) == (1, 0)
        await at.settled()
        after = await scrape(admin)
    for name in ("mynah_ttfa_seconds_count", "mynah_chunk_gap_seconds_count", "mynah_buffer_lead_seconds_count"):
        assert after(name) == before(name)
    assert after("mynah_audio_seconds_total") > before("mynah_audio_seconds_total")
    assert after("mynah_streams_offline") == 0


DRY = ("mynah_underruns_total", "mynah_underrun_seconds_total", "mynah_ttfa_seconds_sum")


async def test_a_runtime_that_failed_its_check_is_shown():
    async with serving_metrics() as at:
        at.engine.info = replace(at.engine.info, refused_runtimes=(("tensorrt", "it gives NaN"),))
        assert (await scrape(await admin_of(at)))("mynah_engine_refused", runtime="tensorrt") == 1
    async with serving_metrics() as at:
        assert (await scrape(await admin_of(at)))("mynah_engine_refused") == 0


async def test_sizes_without_a_graph_are_counted():
    async with serving_metrics() as at:
        at.engine.info = replace(at.engine.info, failed_captures=(("tensorrt", 3),))
        assert (await scrape(await admin_of(at)))("mynah_failed_captures", runtime="tensorrt") == 3


async def test_other_metrics_of_the_process_are_exported_too():
    theirs = Counter("other_library_things", "As vLLM registers its own")
    try:
        theirs.inc()
        async with serving_metrics() as at:
            for accept in ("application/openmetrics-text; version=1.0.0", "text/plain"):
                page = await scrape(await admin_of(at), accept)
                assert page("other_library_things_total") == page("mynah_build_info") == 1
                assert "process_resident_memory_bytes" in page.types
    finally:
        REGISTRY.unregister(theirs)


def test_the_buckets_grow_by_at_most_half():
    bounds = [bound for bound in metrics._SECONDS if 0.02 <= bound <= 5.0]
    assert bounds[0] == 0.02
    assert bounds[-1] == 5.0
    assert all(b / a <= 1.5 for a, b in pairwise(bounds))


def test_the_documented_table_matches_the_registry():
    documented = re.search(r"^\| metric .*?(?=\n\n|\Z)", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    assert documented is not None
    assert documented[0].strip() == metrics.table(), "run `python -m service.telemetry.metrics` and put its table there"


def test_every_metric_has_a_help_text_and_every_histogram_a_unit():
    for metric in metrics.ALL:
        (family,) = metric.describe()
        assert family.documentation
        if family.type == "histogram":
            assert family.unit
            assert family.name.endswith("_" + family.unit)


async def test_a_scrape_does_not_stop_streams():
    """Many scrapes at once while a stream speaks: its audio is complete."""
    async with serving_metrics() as at:
        admin = await admin_of(at)
        pages = await asyncio.gather(speak(at), *(scrape(admin) for _ in range(20)))
        assert all(page("mynah_build_info") == 1 for page in pages[1:] if isinstance(page, Page))


async def test_the_capacity_is_exported_only_while_streams_are_admitted():
    """A sum over pods must count neither one that has not measured yet nor one that drains."""
    async with serving_metrics(max_streams=7) as at:
        admin = await admin_of(at)
        assert (await scrape(admin))("mynah_streams_capacity") == 7
        at.server.admission.drain()
        assert "mynah_streams_capacity" not in (await scrape(admin)).types
