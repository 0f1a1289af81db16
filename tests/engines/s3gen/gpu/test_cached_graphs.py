"""Cached decoding on fixed memory equals cached decoding on the CPU, eager and replayed, whatever rows share a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from engines.s3gen.cache.conv import ConvState
from engines.s3gen.gpu import cached_graphs
from engines.s3gen.gpu.cached_graphs import GraphedCachedRuntime, block_sizes
from engines.s3gen.gpu.static_keys import StaticKeys
from engines.s3gen.nets.flow import load_flow
from engines.s3gen.nets.vocoder_weights import load_vocoder
from engines.s3gen.noise import F32
from engines.s3gen.runtime import CachedRuntime
from engines.s3gen.runtimes import torch as torch_module
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.s3gen.streaming.schedule import SCHEDULES
from engines.s3gen.streaming.segment_decoder import collate_cached
from tests.engines.fakes import make_voice
from tests.engines.s3gen import small_nets
from tests.engines.s3gen.cache.test_cached_flow import difference, rows, speech_tokens_of
from tests.engines.t3.gpu.tape import TapeGraphs

SIZES, CONTEXT = (8, 16), 12
# per stream: a voice, and its blocks (new, provisional); contexts fill, wrap around and are overrun by one block
STREAMS = [
    (21, [(5, 3), (7, 3), (9, 3), (3, 3), (4, 0)]),
    (21, [(9, 3), (2, 3), (1, 3), (13, 3), (2, 0)]),
    (22, [(3, 3), (3, 3), (6, 3), (6, 3), (1, 0)]),
]


@pytest.fixture(scope="module")
def nets() -> Iterator[TorchRuntime]:
    """Without compiled kernels, as on a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch_module,
            "_load_for_cpu",
            lambda made: (load_flow(made.s3gen_path, made.spec), load_vocoder(made.s3gen_path, made.spec)),
        )
        torch.set_num_threads(1)
        yield TorchRuntime(small_nets.checkpoint())


def graphed(nets: TorchRuntime, tape: TapeGraphs | None) -> GraphedCachedRuntime:
    runtime = GraphedCachedRuntime(nets, context_tokens=CONTEXT, rows=(1, 2), tokens=SIZES)
    if tape is not None:
        runtime.prepare(tape)
    return runtime


def together(runtime: CachedRuntime) -> list[F32]:
    """All streams' blocks; one stream begins a turn later, so that calls mix long and short contexts."""
    caches = [runtime.begin(make_voice(voice)) for voice, _ in STREAMS]
    work = [
        rows(speech_tokens_of(60, seed), blocks, cache, seed)
        for seed, ((_, blocks), cache) in enumerate(zip(STREAMS, caches, strict=True))
    ]
    made: list[F32] = []
    for turn in range(6):
        due = [blocks[turn - late] for late, blocks in zip((0, 1, 0), work, strict=True) if 0 <= turn - late < 5]
        if turn == 3:
            due = due[::-1]
        mel = runtime.flow_cached(collate_cached(due))
        for row, result in zip(due, mel, strict=True):
            made.append(result[: len(row.noise)])
            row.cache.commit(row.new_tokens)
    return made


@pytest.fixture(scope="module")
def expected(nets: TorchRuntime) -> list[F32]:
    return together(TorchCachedRuntime(nets, context_tokens=CONTEXT))


@pytest.mark.parametrize("replayed", [False, True])
def test_it_equals_cached_decoding_on_the_cpu(nets: TorchRuntime, expected: list[F32], replayed: bool) -> None:
    tape = TapeGraphs() if replayed else None
    runtime = graphed(nets, tape)
    assert runtime.static.graphs == (4 if replayed else 0)
    assert difference(together(runtime), expected) < 1e-5
    assert (runtime.static.eager == 0) is replayed
    assert (runtime.static.replayed > 5) is replayed


def test_a_prompt_is_copied_where_another_voice_was_and_not_again(nets: TorchRuntime) -> None:
    runtime = graphed(nets, None)
    caches = [runtime.begin(make_voice(21)), runtime.begin(make_voice(21)), runtime.begin(make_voice(22))]
    for cache in (caches[0], caches[1], caches[0], caches[2], caches[1]):
        (row, *_) = rows(speech_tokens_of(20), [(5, 3)], cache)
        runtime.flow_cached(collate_cached([row]))
    assert runtime.static.keys.prompts_copied == 3


def test_a_block_longer_than_every_size_is_computed_eagerly(nets: TorchRuntime) -> None:
    runtime, plain = graphed(nets, None), TorchCachedRuntime(nets, context_tokens=CONTEXT)
    results = []
    for each in (runtime, plain):
        (row,) = rows(speech_tokens_of(40), [(25, 3)], each.begin(make_voice(21)))
        results.append(each.flow_cached(collate_cached([row])))
    np.testing.assert_allclose(*results, atol=1e-4)
    assert runtime.static.eager == runtime.static.replayed == 0


def test_captures_that_fail_cost_graphs_and_nothing_else(nets: TorchRuntime, expected: list[F32]) -> None:
    runtime = graphed(nets, TapeGraphs(refuse=2))
    assert (runtime.static.graphs, runtime.failed_captures) == (2, 2)
    assert difference(together(runtime), expected) < 1e-5


def test_half_precision_is_close(nets: TorchRuntime, expected: list[F32]) -> None:
    runtime = graphed(TorchRuntime(small_nets.checkpoint(), dtype=torch.float16), None)
    assert difference(together(runtime), expected) < 2e-2


def test_every_hop_of_the_schedules_has_a_size() -> None:
    sizes = block_sizes()
    for schedule in SCHEDULES.values():
        for step in schedule.steps:
            size = next(size for size in sizes if size >= step.block_tokens)
            assert size - step.block_tokens < 8
    assert len(sizes) <= 8, "every size is four captures"


# -- each rule broken on purpose


def prompt_of_another_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row keeps the first prompt that it had."""
    put = StaticKeys.put

    def keeping(self: StaticKeys, row: int, prompt: object, context: object) -> None:
        held = self._prompts[row]
        if held is not None:
            self._prompts[row] = prompt  # type: ignore[assignment, call-overload]
        put(self, row, prompt, context)  # type: ignore[arg-type]

    monkeypatch.setattr(StaticKeys, "put", keeping)


def lengths_of_the_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths do not reach the device."""
    monkeypatch.setattr(StaticKeys, "set_lengths", lambda self: None)


def states_of_the_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The convolutions begin anew in every block."""
    monkeypatch.setattr(ConvState, "put", lambda self, index, state: None)


def results_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream keeps a view of memory that the next call overwrites."""
    monkeypatch.setattr(ConvState, "row", lambda self, i: ConvState(self.tokens[i], self.frames[i], self.steps[i]))


def inputs_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs in new memory in every call instead of where the graph reads them."""
    monkeypatch.setattr(cached_graphs, "send", lambda target, staged: staged.clone())


@pytest.mark.parametrize(
    "mutation",
    [prompt_of_another_voice, lengths_of_the_capture, states_of_the_capture, results_not_copied, inputs_of_the_host],
)
def test_each_broken_rule_is_found(
    mutation: Callable[[pytest.MonkeyPatch], None],
    nets: TorchRuntime,
    expected: list[F32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = graphed(nets, TapeGraphs())
    mutation(monkeypatch)
    assert not difference(together(runtime), expected) < 1e-5
