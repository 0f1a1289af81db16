"""The memory plan that decides vLLM's share of a GPU."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from engines.errors import InvalidInput
from engines.model_spec import MULTILINGUAL, NANO, STANDARD, STANDARD_TINY, TINY, TURBO, ModelSpec
from engines.s3gen.nets import flow, vocoder_weights
from engines.t3.alignment.memory import words_bytes
from engines.t3.llama import weights as llama_weights
from engines.t3.model import expected_tensors
from engines.t3.vllm.backend import _dtype
from engines.t3.vllm.family import vllm_family
from engines.t3.vllm.llama.vocab import EXAGGERATION_ROWS
from engines.t3.vllm.memory import (
    S3GEN_BYTES,
    MemoryPlan,
    check_fits,
    memory_plan,
)

GB = 1_000_000_000
SLOTS = 256


def plan_for(spec: ModelSpec, streams: int, bytes_per_value: int = 2, words: int = 0) -> MemoryPlan:
    family = vllm_family(spec.t3, SLOTS)
    return memory_plan(family, max_streams=streams, max_positions=2048, bytes_per_value=bytes_per_value, words=words)


def test_turbo_with_32_streams_and_s3gen_fit_in_10_gb() -> None:
    """Words included, whichever of its layers they are read at."""
    plan = plan_for(TURBO, 32, words=words_bytes(TURBO.t3, TURBO.t3.layers, 2048, lent=True))
    print(f"\nTurbo, 32 streams: {plan}")
    assert plan.total <= 10 * GB
    assert plan.words > 4000 * 96 * 1024, "keys and values of segments and their voices"
    assert plan.kv_cache >= 32 * 1500 * 96 * 1024, "a full prefix and a segment of the longest kind for every stream"


def test_the_parts_make_the_sum() -> None:
    plan = plan_for(NANO, 16)
    parts = plan.weights + plan.kv_cache + plan.work + plan.cuda_graphs + plan.s3gen + plan.context
    assert plan.total == parts
    assert (replace(plan, words=1).total, replace(plan, words=1).t3) == (parts + 1, plan.t3), "outside vLLM's share"
    assert plan.utilization(24 * GB) == pytest.approx((plan.weights + plan.kv_cache + plan.work) / (24 * GB))
    assert f"= {plan.total / 1e6:.0f} MB" in str(plan)


def test_standard_with_16_streams_and_ten_guided_steps_fits_in_15_gb() -> None:
    plan = plan_for(STANDARD, 16)
    print(f"\nStandard, 16 streams: {plan}")
    assert plan.total <= 15 * GB
    assert plan.kv_cache >= 16 * 1238 * 240 * 1024, "the conditioning, 200 text tokens and 1000 speech tokens each"


def test_kv_bytes_are_those_of_the_facts() -> None:
    assert vllm_family(TURBO.t3, 1).kv_bytes_per_position(2) == 96 * 1024
    assert vllm_family(NANO.t3, 1).kv_bytes_per_position(2) == 36 * 1024
    assert vllm_family(STANDARD.t3, 1).kv_bytes_per_position(2) == 240 * 1024


@pytest.mark.parametrize("spec", [TINY, NANO, TURBO], ids=lambda spec: spec.name)
def test_weights_are_what_the_file_says_and_the_voice_slots(spec: ModelSpec) -> None:
    values = sum(math.prod(shape) for shape in expected_tensors(spec).values())
    speaker = sum(math.prod(s) for name, s in expected_tensors(spec).items() if name.startswith("cond_enc"))
    expected = (values - speaker + SLOTS * spec.t3.width) * 2 + speaker * 4
    assert vllm_family(spec.t3, SLOTS).weight_bytes(2) == expected


@pytest.mark.parametrize("spec", [STANDARD_TINY, MULTILINGUAL], ids=lambda spec: spec.name)
def test_a_guided_models_weights_are_the_files_the_voice_slots_and_what_makes_voices(spec: ModelSpec) -> None:
    width, tensors = spec.t3.width, llama_weights.expected_tensors(spec)
    values = {name: math.prod(shape) for name, shape in tensors.items()}
    voices = {name for name in values if name.startswith(("cond_enc", "speech_emb", "speech_pos_emb"))}
    in_half = sum(size for name, size in values.items() if not name.startswith("cond_enc"))
    slots = (EXAGGERATION_ROWS + 33 * SLOTS + 1) * width  # and the row of no place
    expected = 2 * (in_half + slots) + 4 * sum(values[name] for name in voices)
    assert vllm_family(spec.t3, SLOTS).weight_bytes(2) == expected


def test_s3gens_share_holds_its_weights_twice_over() -> None:
    shapes = [*flow.expected_tensors(TURBO).values(), *vocoder_weights.expected_tensors(TURBO).values()]
    weights = 4 * sum(math.prod(shape) for shape in shapes)
    assert 2 * weights <= S3GEN_BYTES


def test_the_error_of_a_small_gpu_names_the_number_of_streams_that_fit() -> None:
    plan = plan_for(TURBO, 32)
    check_fits(plan, 32, plan.total)
    with pytest.raises(InvalidInput, match=r"max_streams is 32; .* at most (\d+)") as failure:
        check_fits(plan, 32, 8 * GB)
    assert failure.value.reason == "GPU_TOO_SMALL"
    possible = int(failure.value.allowed.split()[2])
    assert 0 < possible < 32
    assert plan_for(TURBO, possible).total <= 8 * GB < plan_for(TURBO, possible + 1).total
    with pytest.raises(InvalidInput, match="at most 0") as failure:
        check_fits(plan, 32, 2 * GB)
    assert "word_times" not in str(failure.value)


def test_reading_words_is_in_the_sum_and_the_error_says_how_to_do_without_it() -> None:
    plan = plan_for(TURBO, 32, words=words_bytes(TURBO.t3, 24, 2048, lent=True))
    check_fits(plan, 32, plan.total)
    with pytest.raises(InvalidInput, match=r"at most 31 .* \(word_times off\) they need 495 MB less"):
        check_fits(plan, 32, plan.total - 1)


def test_half_precision_halves_what_it_should() -> None:
    half, full = plan_for(TURBO, 8, 2), plan_for(TURBO, 8, 4)
    assert full.kv_cache == 2 * half.kv_cache
    assert half.s3gen == full.s3gen


@pytest.mark.parametrize("spec", [TINY, NANO, TURBO, STANDARD], ids=lambda spec: spec.name)
def test_one_stream_has_room_for_a_sequence_of_the_greatest_length_and_work_beside_it(spec: ModelSpec) -> None:
    """vLLM refuses to start without it."""
    plan = plan_for(spec, 1)
    assert plan.kv_cache >= (2048 + 1) * vllm_family(spec.t3, 1).kv_bytes_per_position(2)
    assert plan.work >= 400_000_000


def test_float32_on_a_gpu_is_refused_because_vllm_has_no_fast_attention_for_it() -> None:
    with pytest.raises(InvalidInput, match="float16 or bfloat16"):
        _dtype("float32", "cuda")
    assert (_dtype("auto", "cuda"), _dtype("float32", "cpu")) == ("float16", "float32")
