"""Plans on paper: operations against closed forms, and what must hold of a plan for any GPU and load."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.config import S3GEN_RUNTIMES, T3_BACKENDS
from engines.model_spec import MEL_BANDS, SPEECH_VOCAB, STANDARD_TINY, TINY, TURBO, LlamaSpec, T3Spec, with_guided_flow
from engines.planning.gpus import GPUS, find_gpu
from engines.planning.operations import ATTENTION, Operation, batched, count, flops, in_half, weight_bytes
from engines.planning.plan import Planner, engine_memory
from engines.planning.stages import META, Window, s3gen_operations, t3_operations, walked
from engines.planning.times import S3GEN, T3, Assumptions, How, Times, call_ms
from engines.s3gen.gpu.tensorrt import engine_bytes
from engines.s3gen.streaming.schedule import SCHEDULES
from engines.t3.alignment.memory import words_bytes
from engines.t3.gpu.memory import static_plan
from engines.t3.vllm.family import vllm_family
from engines.t3.vllm.memory import memory_plan
from engines.tools import cli

SMALL = dataclasses.replace(TINY, t3=T3Spec(layers=3, width=32, heads=2, positions=2048, text_vocab=50))


def test_a_matrix_product_is_counted_by_its_closed_form():
    x, weight, bias = (torch.empty(shape, device=META) for shape in ((5, 7), (11, 7), (11,)))
    (one,) = count(lambda: F.linear(x, weight, bias), [x])
    assert one == Operation("addmm", 2 * 5 * 7 * 11, 4 * (7 * 11 + 11), 4 * (5 * 7 + 5 * 11))


def test_a_convolution_is_counted_by_its_closed_form():
    net = torch.nn.Conv1d(3, 8, 5, padding=2, device="meta").half()
    x = torch.empty(2, 3, 40, dtype=torch.float16, device=META)
    (one,) = count(lambda: net(x), [x])
    assert one.flops == 2 * 2 * 40 * 8 * 3 * 5
    assert one.weight_bytes == 2 * (8 * 3 * 5 + 8)
    assert one.half


def test_attention_is_one_kernel_whose_scores_stay_on_the_chip():
    q, k, v = (torch.empty(2, 4, frames, 16, device=META) for frames in (10, 30, 30))
    (one,) = count(lambda: F.scaled_dot_product_attention(q, k, v), [q, k, v])
    assert (one.name, one.flops) == (ATTENTION, 2 * 2 * 2 * 4 * 10 * 30 * 16)
    assert one.other_bytes == 4 * 2 * 4 * 16 * (10 + 30 + 30 + 10)


def test_what_depends_on_weights_alone_is_constant_and_views_cost_nothing():
    weight, x = torch.empty(8, 6, device=META), torch.empty(3, 6, device=META)
    operations = count(lambda: x.view(3, 6) @ (weight * 2).t(), [x])
    assert [(o.name, o.constant) for o in operations] == [("mul", True), ("mm", False)]
    assert operations[1].weight_bytes == 4 * 48


@pytest.mark.parametrize("start", [0, 20])
@pytest.mark.parametrize("rows", [1, 9])
def test_t3_is_counted_by_its_closed_form(rows: int, start: int):
    spec, positions = SMALL.t3, start + rows
    matrices = 12 * spec.layers * spec.width**2
    expected = 2 * rows * matrices + 2 * spec.width * SPEECH_VOCAB + 4 * spec.layers * spec.width * rows * positions
    assert flops(t3_operations(SMALL, rows, start)) == expected
    # matrices and their biases, norms, the head; of the positions those that are read
    weights = matrices + spec.layers * 13 * spec.width + (2 + rows) * spec.width + SPEECH_VOCAB * (spec.width + 1)
    assert weight_bytes(t3_operations(SMALL, rows, start)) == 4 * weights


def test_a_step_of_several_streams_reads_the_weights_once():
    one, three = t3_operations(SMALL, 1, 20), t3_operations(SMALL, 1, 20, streams=3)
    assert flops(batched(one, 3)) == flops(three) == 3 * flops(one)
    assert weight_bytes(batched(one, 3)) == weight_bytes(one)
    assert 2 * weight_bytes(in_half(one)) == weight_bytes(one)


def test_t3s_caches_are_no_weights():
    short, long = t3_operations(SMALL, 1, 10), t3_operations(SMALL, 1, 40)
    grown = sum(o.other_bytes for o in long) - sum(o.other_bytes for o in short)
    assert weight_bytes(short) == weight_bytes(long)
    assert grown == 30 * 2 * SMALL.t3.layers * SMALL.t3.width * 4


@pytest.mark.parametrize(("stage", "rows", "length"), [("encoder", 1, 80), ("cfm", 3, 41), ("vocoder", 5, 100)])
def test_sizes_between_those_that_were_walked_are_exact(stage: str, rows: int, length: int):
    part = TINY.vocoder if stage == "vocoder" else TINY.flow
    expected = walked(part, stage, rows, length, torch.float16)
    assert s3gen_operations(TINY, stage, rows, length, torch.float16) == expected


def test_ten_guided_steps_are_counted_on_their_own_graph():
    """Twenty rows of the U-Net against two; a guided net mixes no times, and has two lanes to mix."""
    guided = with_guided_flow(TINY)
    channels = TINY.flow.channels
    mixer = 2 * 3 * (8 * channels * 4 * channels + 2 * (4 * MEL_BANDS * 4 * channels + (4 * channels) ** 2))
    two, ten = (flops(s3gen_operations(spec, "cfm", 3, 41, torch.float16)) for spec in (TINY, guided))
    times = 2 * 3 * (4 * MEL_BANDS * 4 * channels + (4 * channels) ** 2)
    assert ten == 20 * (two // 2 - mixer + times)
    encoder = (flops(s3gen_operations(spec, "encoder", 3, 41, torch.float16)) for spec in (TINY, guided))
    assert len(set(encoder)) == 1
    # the weights of a step are read once for both lanes
    read = [
        weight_bytes(s3gen_operations(spec, "cfm", 3, 41, torch.float16)) / spec.flow.steps for spec in (TINY, guided)
    ]
    assert read[1] == read[0] - 2 * 8 * channels * 4 * channels - read_twice(channels)


def read_twice(channels: int) -> int:
    """Bytes of the time's layers in float16, which a meanflow net reads for both of its times."""
    return 2 * (4 * MEL_BANDS * 4 * channels + (4 * channels) ** 2 + 2 * 4 * channels)


def test_s3gens_linear_layers_are_counted_by_their_closed_form():
    """The encoder's products of frames and weights; what remains is attention and its positions."""
    spec, tokens = TINY.flow, 64
    layer = 4 * spec.width**2 + 2 * spec.width * spec.feed_forward
    at_tokens = spec.width**2 * (1 + 4 + 3) + spec.encoder_layers * layer  # embedding, lookahead of 4 and 3 taps
    at_frames = spec.width**2 * (5 + 1) + spec.up_layers * layer + spec.width * 80
    linear = 2 * tokens * at_tokens + 2 * 2 * tokens * at_frames
    frames = spec.encoder_layers * tokens**2 + spec.up_layers * (2 * tokens) ** 2
    attention = 4 * spec.width * frames + 4 * spec.width * frames  # content and values; positions are twice as many
    tables = 2 * spec.width**2 * 2 * tokens * (spec.encoder_layers + 2 * spec.up_layers)
    speaker = 2 * 192 * 80
    walk = s3gen_operations(TINY, "encoder", 1, tokens, torch.float32)
    assert flops(walk) == linear + attention + tables + speaker


@given(
    gpu=st.sampled_from(sorted(GPUS)),
    t3=st.sampled_from(sorted(T3)),
    s3gen=st.sampled_from(sorted(S3GEN)),
    streams=st.integers(1, 200),
    more=st.integers(1, 200),
)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_more_streams_are_never_easier(gpu: str, t3: str, s3gen: str, streams: int, more: int):
    planner = Planner(Times(SMALL, GPUS[gpu], t3, s3gen))
    few, many = planner.plan(streams), planner.plan(streams + more)
    assert few.memory_total_mb < many.memory_total_mb
    for a, b in zip(few.loads, many.loads, strict=True):
        assert a.carried == b.carried
        assert a.gpu_busy < b.gpu_busy
        assert a.host_busy < b.host_busy
        assert a.usd_per_speech_hour >= b.usd_per_speech_hour
    times = [planner.first_audio(count) for count in (streams, streams + more)]
    assert times[0].median_ms <= times[1].median_ms
    assert times[0].slowest_ms < times[1].slowest_ms
    assert all(first.median_ms <= first.slowest_ms for first in times)
    assert set(few.problems) <= set(many.problems) or not few.problems


@given(
    factor=st.floats(1.1, 10),
    name=st.sampled_from(["fp16_tflops", "fp32_tflops", "gb_per_s", "memory_gb"]),
    s3gen=st.sampled_from(sorted(S3GEN)),
)
@settings(max_examples=6, deadline=None, derandomize=True)
def test_a_better_gpu_is_never_slower(factor: float, name: str, s3gen: str):
    gpu = GPUS["a10g"]
    better = dataclasses.replace(gpu, **{name: factor * getattr(gpu, name)})
    plans = [Planner(Times(SMALL, it, "vllm", s3gen)).plan(8) for it in (gpu, better)]
    assert all(plans[1].stages_ms[stage] <= ms for stage, ms in plans[0].stages_ms.items())
    assert plans[1].carried >= plans[0].carried


def test_an_operation_takes_the_longest_of_arithmetic_memory_and_launch():
    gpu = dataclasses.replace(GPUS["a10g"], fp16_tflops=1, fp32_tflops=0.5, gb_per_s=1)
    given_ = Assumptions(compute_efficiency=0.5, memory_efficiency=0.5, kernel_us=2, launch_us=7)
    work = Operation("mm", 10**9, 0, 0, half=True)
    how = How(half=True, graph=True, fused=True)
    assert call_ms((work,), how, gpu, given_) == pytest.approx(2)
    assert call_ms((dataclasses.replace(work, half=False),), how, gpu, given_) == pytest.approx(4)
    assert call_ms((Operation("mm", 1, 10**6, 10**6),), how, gpu, given_) == pytest.approx(4)
    assert call_ms((Operation("mm", 1, 0, 0),), how, gpu, given_) == pytest.approx(0.002)
    assert call_ms((Operation("add", 0, 10**6, 0),), how, gpu, given_) == 0
    assert call_ms((Operation("add", 0, 0, 1),), How(False, False, False), gpu, given_) == pytest.approx(0.007)


@pytest.mark.parametrize("streams", [1, 32, 500])
def test_memory_is_the_engines_own_sum(streams: int):
    family = vllm_family(TURBO.t3, max(256, streams))
    sizes = {"max_streams": streams, "max_positions": 2048, "bytes_per_value": 2}
    assert engine_memory(TURBO, streams, word_times=False) == memory_plan(family, **sizes)
    words = words_bytes(TURBO.t3, TURBO.t3.layers, 2048, lent=True)
    assert engine_memory(TURBO, streams) == memory_plan(family, words=words, **sizes)
    small = Planner(Times(SMALL, GPUS["l4"])).plan(streams)
    assert small.memory_total_mb == pytest.approx(sum(small.memory_mb.values()))


def test_every_runtime_that_a_gpu_takes_by_itself_is_planned():
    """As the check looks them up by the names that the engine gives."""
    assert {*T3, "auto"} >= {name for name in T3_BACKENDS if name != "onnx"}
    assert {*S3GEN, "auto"} >= {name for name in S3GEN_RUNTIMES if name != "onnx"}


def test_t3_on_torch_graphs_is_planned_by_its_own_memory_and_by_what_a_graph_reads():
    sizes = {"max_streams": 32, "max_positions": 2047, "bytes_per_value": 2}
    memory = engine_memory(SMALL, 32, word_times=False, t3="torch_graphs")
    assert memory == static_plan(SMALL.t3, **sizes)
    planner = Planner(Times(SMALL, GPUS["a10g"], "torch_graphs"), word_times=False)
    assert planner.plan(32).memory_total_mb == memory.total / 1e6
    times = dataclasses.replace(planner.times, given=Assumptions(kernel_us=0))
    steps = [times.t3_step_ms(32, start) for start in (0, 511, 512, 1023, 1024, 2047)]
    assert steps[0] == steps[1] < steps[2] == steps[3] < steps[4] == steps[5]


def test_guidance_needs_the_memory_of_a_second_lane():
    two, ten = (engine_memory(spec, 8) for spec in (TURBO, with_guided_flow(TURBO)))
    assert (ten.s3gen - two.s3gen, ten.total - two.total) == (1_000_000_000, 1_000_000_000)
    assert engine_bytes(with_guided_flow(TURBO).flow) < ten.s3gen


def test_turbo_with_32_streams_needs_at_most_10_gb_and_9_and_a_half_without_word_times():
    assert engine_memory(TURBO, 32).total <= 10e9
    assert engine_memory(TURBO, 32, word_times=False).total <= 9.5e9


def test_word_times_take_of_the_streams_that_fit():
    """With words read up to Turbo's last layer, 10 GB hold 32 streams, and 24 GB 96."""
    small = dataclasses.replace(GPUS["a10g"], memory_gb=10)
    with_words, without = (
        Planner(Times(TURBO, small), word_times=asked).plan(32).loads[0].limits["memory"] for asked in (True, False)
    )
    assert (with_words, without) == (32, 35)
    assert engine_memory(TURBO, 96).total <= 24e9


def test_the_limits_are_where_the_plan_stops_holding():
    planner = Planner(Times(SMALL, GPUS["l4"]))
    plan = planner.plan(1)
    best = max(plan.loads, key=lambda load: load.carried)
    assert not planner.plan(best.carried).problems
    assert planner.plan(best.carried + 1).problems


def test_windows_are_those_that_a_schedule_cuts():
    schedule = SCHEDULES["balanced"]
    assert Window.first(schedule) == Window(250 + 10 + 3, 20 + 6)
    assert Window.later(schedule, schedule.steps[-1]) == Window(250 + 50 + 107, 14 + 200 + 14)
    assert Window(263, 26).on_grid() == Window(272, 32)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GeForce RTX 4090", None),
        ("NVIDIA L40", None),
    ],
)
def test_a_gpu_is_found_by_its_drivers_name(device: str, name: str | None):
    gpu = find_gpu(device)
    assert (None if gpu is None else gpu.name) == name


def test_the_command_prints_a_plan_with_its_assumptions(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["plan", "--gpu", "l4", "--model", "tiny", "--streams", "8"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "time to first audio",
        "T3 step of 8 streams",
        "compute_efficiency 0.4",
        "data sheet",
        "USD",
        "of 24000",
    ):
        assert words in shown


def test_the_command_prints_json_and_fails_where_the_streams_do_not_fit(capsys: pytest.CaptureFixture[str]):
    arguments = ["plan", "--gpu", "a10g", "--model", "tiny", "--streams", "4000", "--json", "--usd-per-hour", "2"]
    assert cli.main([*arguments, "--t3-host-ms", "4"]) == 1
    made = json.loads(capsys.readouterr().out)
    assert made["problems"]
    assert made["usd_per_hour"] == 2
    assert made["prices_date"] == "given"
    assert made["assumptions"]["t3_host_ms"] == 4
    assert [first["streams"] for first in made["first_audio"]] == [1, 8, 32, 4000]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--compute-efficiency", "0"],
        ["--busy-limit", "1.1"],
        ["--kernel-us", "nan"],
        ["--t3-host-ms", "-1"],
        ["--step-positions", "2048"],
        ["--text-tokens", "2000"],
    ],
)
def test_an_impossible_assumption_is_named(wrong: list[str], capsys: pytest.CaptureFixture[str]):
    assert cli.main(["plan", "--gpu", "l4", "--model", "tiny", *wrong]) == 1
    assert f"{wrong[0][2:].replace('-', '_')} is " in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["--streams", "0"], ["--gpu", "b200"], ["--usd-per-hour", "-1"], ["--kernel-us", "x"]]
)
def test_wrong_arguments_end_with_status_2(wrong: list[str]):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["plan", "--gpu", "l4", *wrong])


def test_guidance_is_two_rows_of_the_matrices_and_twice_the_heads() -> None:
    """Standard's T3 by hand: every weight twice but the head's, and attention of both lanes."""
    spec, rows, start = STANDARD_TINY.t3, 1, 99
    assert isinstance(spec, LlamaSpec)
    block = 4 * spec.width**2 + 3 * spec.width * spec.feed_forward
    matrices = 2 * 2 * spec.layers * block + 2 * spec.width * spec.speech_vocab
    attention = 2 * 4 * spec.layers * spec.width * (start + rows)
    assert flops(t3_operations(STANDARD_TINY, rows, start)) == matrices + attention
