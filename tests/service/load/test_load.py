"""The load generator's arithmetic, its search, and one short load on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import numpy as np
import pytest

from engines.fake import Script
from service.load.arrivals import poisson
from service.load.figures import Bounds, Figures, figures_of, percentile
from service.load.player import Player
from service.load.run import Outcome, run_load
from service.load.search import highest_rate
from service.load.surfaces import SURFACES, Refusal, Surface
from tests.service.serving import Serving, serving
from tests.virtual_time import virtual_time

BOUNDS = Bounds(onset_p95_s=1.0)


def pcm(seconds: float, level: int = 10_000) -> bytes:
    return np.full(round(seconds * 24_000), level, "<i2").tobytes()


def test_arrivals_are_random_yet_the_same_for_a_seed():
    once, again, other = (poisson(50.0, 100.0, seed) for seed in (1, 1, 2))
    assert once == again != other
    assert len(once) == pytest.approx(5000, rel=0.06)
    gaps = np.diff([arrival.at_s for arrival in once])
    assert np.mean(gaps) == pytest.approx(1 / 50, rel=0.06)
    assert np.std(gaps) == pytest.approx(1 / 50, rel=0.1), "an exponential's deviation is its mean"


def test_a_player_measures_onset_and_underruns():
    player = Player()
    player.add(10.0, pcm(0.2, level=0))
    player.add(10.1, pcm(0.1, level=20))  # still too quiet; plays from 10.2 on
    player.add(10.25, pcm(0.2, level=0) + pcm(0.3))  # plays from 10.3 on
    assert player.onset_s == pytest.approx(10.5)
    assert player.underruns == 0
    player.add(11.0, pcm(0.1))  # 0.2 s after the end at 10.8
    assert (player.underruns, player.underrun_s) == (1, pytest.approx(0.2))
    assert player.audio_s == pytest.approx(0.9)
    player.add(11.4, pcm(0.1))  # 0.3 s after the end at 11.1
    assert (player.underruns, player.underrun_s) == (2, pytest.approx(0.5))


class Scripted:
    """A surface with a queue: every stream needs `service_s` of one server and then gets 1 s of audio."""

    def __init__(self, service_s: float, fails: bool = False) -> None:
        self._service_s, self._fails = service_s, fails
        self.free_at_s = 0.0

    async def __aenter__(self) -> Scripted:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        import asyncio

        now_s = asyncio.get_running_loop().time()
        self.free_at_s = max(now_s, self.free_at_s) + self._service_s
        await asyncio.sleep(self.free_at_s - now_s)
        if self._fails:
            raise Refusal("ENGINE_FAILURE")
        yield pcm(1.0)


def trial_on(service_s: float):
    async def trial(rate: float) -> Figures:
        outcomes = await run_load(Scripted(service_s), poisson(rate, 60.0, seed=3))
        return figures_of(outcomes, rate, 60.0, BOUNDS)

    return trial


def test_the_search_finds_where_a_queue_grows():
    """A queue has p95 within 1 s up to a utilisation of about 0.75."""
    rate, trials = virtual_time(highest_rate(trial_on(0.1), BOUNDS, first_per_s=0.5))
    assert 5.0 < rate < 9.8
    carried = [figures.rate_per_s for figures in trials if figures.within(BOUNDS)]
    broke = [figures.rate_per_s for figures in trials if not figures.within(BOUNDS)]
    assert max(carried) == rate < min(broke) <= rate * 1.15
    onsets = [f.onset_p95_s for f in sorted(trials, key=lambda f: f.rate_per_s)]
    assert all(b > a * 0.7 for a, b in pairwise(onsets))


def test_a_server_that_sustains_no_rate_gives_zero():
    rate, trials = virtual_time(highest_rate(trial_on(5.0), BOUNDS, first_per_s=2.0, max_trials=4))
    assert rate == 0
    assert [figures.rate_per_s for figures in trials] == [2.0, 1.0, 0.5, 0.25]


def test_waiting_counts_from_when_a_stream_was_due():
    outcomes = virtual_time(run_load(Scripted(2.0), poisson(2.0, 10.0, seed=1)))
    assert max(o.onset_s or 0 for o in outcomes) > 10, "an open loop does not wait for the server"
    assert max(o.late_s for o in outcomes) == pytest.approx(0, abs=1e-6)


def test_errors_are_counted_by_reason_and_are_not_good():
    outcomes = virtual_time(run_load(Scripted(0.01, fails=True), poisson(2.0, 10.0, seed=1)))
    figures = figures_of(outcomes, 2.0, 10.0, BOUNDS)
    assert figures.errors == {"ENGINE_FAILURE": len(outcomes)}
    assert not figures.within(BOUNDS)
    assert figures.goodput == 0


def test_figures():
    outcomes = [Outcome(ttfa_s=i / 100, onset_s=i / 100, audio_s=2.0, wall_s=1.0) for i in range(1, 101)]
    figures = figures_of(outcomes, 10.0, 10.0, BOUNDS)
    assert (figures.onset_p50_s, figures.onset_p95_s, figures.onset_p99_s) == (0.5, 0.95, 0.99)
    assert (figures.rtf_p50, figures.goodput) == (0.5, 20.0)
    assert figures.within(BOUNDS)
    assert np.isnan(percentile([], 95))


def surface_of(name: str, at: Serving) -> Surface:
    assert at.http is not None
    return SURFACES[name](at.address if name in ("grpc", "riva") else at.http)


@pytest.mark.parametrize("name", SURFACES)
async def test_a_load_on_a_real_server(name: str):
    script = Script(token_s=0.001, tokens_per_char=0.2)
    async with serving(script, max_streams=32, http=True) as at, surface_of(name, at) as surface:
        outcomes = await run_load(surface, poisson(20.0, 1.0, seed=4))
        await at.settled()
        made = at.engine.made_samples
    assert {outcome.error for outcome in outcomes} == {""}
    assert sum(outcome.audio_s for outcome in outcomes) == pytest.approx(made / 24_000), "every sample was received"
    for outcome in outcomes:
        assert outcome.onset_s is not None
        assert outcome.ttfa_s is not None
        assert 0 < outcome.ttfa_s <= outcome.onset_s < outcome.ttfa_s + 0.1


@pytest.mark.parametrize("name", SURFACES)
async def test_a_full_servers_refusals_are_errors(name: str):
    async with serving(max_streams=1, http=True) as at, at.client.stream(), surface_of(name, at) as surface:
        (outcome,) = await run_load(surface, poisson(5.0, 0.3, seed=1)[:1])
    assert outcome.error == "STREAMS_EXHAUSTED"
