"""The verdict of the soak test on samples with and without faults."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import grpc.aio
import pytest

from bench.soak import HELD, Clients, Sample, failures, growth, left_over

REST = Sample(0.0, 100e6, {"socket": 4}, 15, (0.0,) * len(HELD))


def samples(*, slope: float = 0.0, noise: float = 0.0) -> list[Sample]:
    """200 samples over 100 s. Memory grows by `slope` of itself over each half, with alternating `noise`."""
    return [
        replace(REST, at_s=i / 2, rss_bytes=100e6 * (1 + slope * i / 100 + noise * (-1) ** i)) for i in range(200)
    ]  # fmt: skip


@pytest.mark.parametrize("slope", [0.0, 0.05, -0.05])
def test_growth_is_measured_over_the_second_half(slope: float):
    assert growth(samples(slope=slope)) == pytest.approx(slope, rel=0.2)
    assert growth(samples(slope=slope, noise=0.05)) == pytest.approx(slope, abs=0.005)


def test_growth_before_the_second_half_does_not_count():
    settled = samples()
    early = [replace(sample, rss_bytes=50e6 + 1e6 * sample.at_s) for sample in settled[:100]]
    assert abs(growth(early + settled[100:])) < 0.001


def test_a_server_without_leaks_passes():
    assert failures(samples(noise=0.01), REST, REST, Counter()) == []


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (replace(REST, tasks=16), "1 tasks are left"),
        (replace(REST, files={"socket": 5}), "files are left open: {'socket': 1}"),
        (replace(REST, held=(1.0, *REST.held[1:])), "mynah_streams_active is 1"),
    ],
)
def test_leaks_are_named(after: Sample, expected: str):
    assert left_over(REST, after) == failures(samples(), REST, after, Counter()) == [expected]


def test_growth_and_wrong_answers_fail_it():
    grown, unanswered = failures(samples(slope=0.03), REST, REST, Counter({"listen: UNANSWERED": 2}))
    assert grown.startswith("memory grew by 2.8% over the second half")
    assert unanswered == "2 x listen: UNANSWERED"


async def test_a_run_that_met_too_little_is_named():
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        clients = Clients(channel, "127.0.0.1:1", 1, 1.0)
    everything = clients.missing(small_disk=True)
    assert "nothing tried slow head" in everything
    assert everything[-1] == "the disk was never full"
    clients.ends.update(f"{each.removeprefix('nothing tried ')}: well" for each in everything[:-1])
    assert clients.missing(small_disk=False) == []
    assert clients.missing(small_disk=True) == ["the disk was never full"]
    clients.ends["full disk: STORAGE_FULL"] += 1
    assert clients.missing(small_disk=True) == []
