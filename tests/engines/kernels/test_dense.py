"""The compiled dense layer computes what torch's does: every shape, instruction set, precision and kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engines.kernels.dense import (
    ADD,
    GELU,
    PLAIN,
    DenseLayer,
    TileLayer,
    WeightFormat,
    fp16_supported,
    int8_blocks,
    int16_blocks,
    vnni_supported,
)
from engines.kernels.library import amx_supported, simd_widths

FORMATS: tuple[WeightFormat, ...] = ("float32", "float16", "int8")
WITH_VNNI = [width for width in simd_widths() if vnni_supported(width)]  # none on a CPU without the instruction
on_amx = pytest.mark.skipif(not amx_supported(), reason="this machine has no AMX")
HERE = [(width, each) for width in simd_widths() for each in FORMATS if width >= 8 or each != "float16"]


def run(layer: DenseLayer, x: Tensor, kind: int = PLAIN, residual: Tensor | None = None) -> Tensor:
    """x (rows, in), residual (rows, out) -> (rows, out)"""
    out = torch.full((len(x), layer.width), torch.nan)
    work = torch.full((layer.work_floats(len(x)),), torch.nan)
    padded = None if residual is None else F.pad(residual, (0, layer.width - layer.outputs))
    address = None if padded is None else padded.data_ptr()
    layer.run(x.data_ptr(), len(x), out.data_ptr(), work.data_ptr(), kind, address)
    return out[:, : layer.outputs]


def kept_in(weights: WeightFormat, weight: Tensor) -> Tensor:
    """The weight as the format keeps it."""
    if weights == "int8":
        numbers, scales = int8_blocks(weight.numpy())
        return torch.from_numpy(numbers * np.repeat(scales, 32, axis=0)[: len(numbers)])
    return weight.half().float() if weights == "float16" else weight


def read_with(weights: WeightFormat, x: Tensor) -> Tensor:
    """The rows as a layer of that format reads them."""
    if weights == "int8":
        numbers, scales = int16_blocks(x.numpy())
        return torch.from_numpy(numbers * np.repeat(scales, 32, axis=1)[:, : x.shape[1]])
    return x


@pytest.mark.parametrize(("simd_width", "weights"), HERE)
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    depth=st.integers(1, 600),
    outputs=st.integers(1, 90),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_layer_is_torchs(
    simd_width: int, weights: WeightFormat, rows: int, depth: int, outputs: int, threads: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(depth, outputs, generator=draw) / depth**0.5
    bias, x = torch.randn(outputs, generator=draw), torch.randn(rows, depth, generator=draw)
    residual = torch.randn(rows, outputs, generator=draw)
    layer = DenseLayer(weight.numpy(), bias.numpy(), threads, weights=weights, pool="tests", simd_width=simd_width)
    kept = kept_in(weights, weight)
    expected = read_with(weights, x) @ kept + bias
    torch.testing.assert_close(run(layer, x), expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(run(layer, x, GELU), F.gelu(expected, approximate="tanh"), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(run(layer, x, ADD, residual), expected + residual, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("simd_width", "weights"), HERE)
def test_a_row_does_not_depend_on_its_companions(simd_width: int, weights: WeightFormat) -> None:
    """Except by rounding: the order of its sums changes if a call has more rows than registers."""
    draw = np.random.default_rng(0)
    weight, bias = draw.standard_normal((300, 64)).astype(np.float32), np.zeros(64, np.float32)
    layer = DenseLayer(weight, bias, 2, weights=weights, pool="tests", simd_width=simd_width)
    x = torch.randn(30, 300, generator=torch.Generator().manual_seed(0))
    together = run(layer, x)
    alone = torch.cat([run(layer, row[None]) for row in x])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize(("simd_width", "weights"), HERE)
def test_gelu_of_any_size(simd_width: int, weights: WeightFormat) -> None:
    eye, nothing = np.eye(64, dtype=np.float32), np.zeros(64, np.float32)
    size = 127 / 128 if weights == "int8" else 1.0  # so that its scale, and with it each weight, is exact
    eye *= size
    layer = DenseLayer(eye, nothing, 1, weights=weights, pool="tests", simd_width=simd_width)
    x = torch.cat([torch.linspace(-60, 60, 640), torch.tensor([-1e30, 1e30, 0.0, torch.nan] * 16)]).reshape(-1, 64)
    read = read_with(weights, x.nan_to_num(0.0))
    got, expected = run(layer, x.nan_to_num(0.0), GELU), F.gelu(read * size, approximate="tanh")
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    assert run(layer, x, GELU).isnan().any(), "NaN must not be hidden"


def test_float16_weights_need_instructions_for_them() -> None:
    assert fp16_supported() == (simd_widths()[0] >= 8)
    weight, bias = np.ones((4, 4), np.float32), np.ones(4, np.float32)
    with pytest.raises(ValueError, match="float16"):
        DenseLayer(weight, bias, 1, weights="float16", pool="tests", simd_width=4)


@given(
    depth=st.integers(1, 100),
    size=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_8_bit_weights_are_off_by_half_a_step_at_most(depth: int, size: float, seed: int) -> None:
    """A step is 1/127 of the largest weight of the block, and up to 1 % more, as scales are rounded up."""
    weight = np.random.default_rng(seed).standard_normal((depth, 6)).astype(np.float32) * np.float32(size)
    weight[depth // 2 :, 0] = 0
    numbers, scales = int8_blocks(weight)
    steps = np.repeat(scales, 32, axis=0)[:depth]
    assert np.abs(numbers * steps - weight).max() <= 0.501 * scales.max()
    for block in range(len(scales)):
        largest = np.abs(weight[32 * block : 32 * block + 32]).max(axis=0)
        assert (scales[block] >= largest / 127 * 0.9999).all()
        assert (scales[block] <= largest / 127 * 1.01).all()


@pytest.mark.parametrize("simd_width", WITH_VNNI)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9, 30])
@pytest.mark.parametrize("outputs", [1, 16, 33, 90])
def test_the_instruction_for_8_bits_changes_nothing(simd_width: int, rows: int, outputs: int) -> None:
    draw = np.random.default_rng(rows)
    weight, bias = draw.standard_normal((300, outputs)).astype(np.float32), np.ones(outputs, np.float32)
    x = torch.from_numpy(draw.standard_normal((rows, 300)).astype(np.float32))
    with_it, without = (
        run(DenseLayer(weight, bias, 2, weights="int8", pool="tests", simd_width=simd_width, vnni=vnni), x)
        for vnni in (True, False)
    )
    assert torch.equal(with_it, without)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("vnni", [True, False])
def test_a_spoilt_row_spoils_itself_alone(spoilt: float, vnni: bool) -> None:
    draw = np.random.default_rng(0)
    weight, bias = draw.standard_normal((100, 40)).astype(np.float32), np.zeros(40, np.float32)
    layer = DenseLayer(weight, bias, 2, weights="int8", pool="tests", vnni=vnni)
    x = torch.from_numpy(draw.standard_normal((3, 100)).astype(np.float32))
    before = run(layer, x)
    x[1, 70] = spoilt
    after = run(layer, x)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert after[1].isnan().all()


@given(
    rows=st.integers(1, 4),
    depth=st.integers(1, 100),
    size=st.sampled_from([0.0, 1e-35, 1e-20, 1e-3, 1.0, 1e30]),
    seed=st.integers(0, 99),
)
def test_rows_beside_8_bit_weights_are_off_by_half_a_step_at_most(
    rows: int, depth: int, size: float, seed: int
) -> None:
    x = np.random.default_rng(seed).standard_normal((rows, depth)).astype(np.float32) * np.float32(size)
    numbers, scales = int16_blocks(x)
    steps = np.repeat(scales, 32, axis=1)[:, :depth].astype(np.float64)
    assert (np.abs(numbers * steps - x) <= 0.505 * steps + 1e-30).all()  # 0.005: 32639 roundings of a float32
    assert np.abs(numbers.astype(int)).max() <= 32639


def run_tiles(layer: TileLayer, x: Tensor) -> Tensor:
    out = torch.full((len(x), layer.outputs), torch.nan)
    work = torch.full((layer.work_floats(len(x)),), torch.nan)
    layer.run(x.data_ptr(), len(x), out.data_ptr(), work.data_ptr())
    return out


@on_amx
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 700),
    groups=st.tuples(st.integers(1, 40), st.integers(1, 6)),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_on_amx_a_layer_is_torchs_and_a_row_is_what_it_is_alone(
    rows: int, groups: tuple[int, int], threads: int, seed: int
) -> None:
    """In one chunk of rows and in several."""
    draw, (depth, outputs) = torch.Generator().manual_seed(seed), (32 * group for group in groups)
    weight = torch.randn(depth, outputs, generator=draw) / depth**0.5
    bias, x = torch.randn(outputs, generator=draw), torch.randn(rows, depth, generator=draw)
    layer = TileLayer(weight.numpy(), bias.numpy(), threads, pool="tests")
    got = run_tiles(layer, x)
    torch.testing.assert_close(got, x @ weight + bias, atol=2e-4, rtol=1e-5)
    assert torch.equal(run_tiles(layer, x[-1:]), got[-1:])


@on_amx
def test_on_amx_a_spoilt_row_spoils_itself_alone() -> None:
    draw = np.random.default_rng(0)
    weight, bias = draw.standard_normal((96, 64)).astype(np.float32), np.zeros(64, np.float32)
    layer = TileLayer(weight, bias, 2, pool="tests")
    x = torch.from_numpy(draw.standard_normal((20, 96)).astype(np.float32))
    before = run_tiles(layer, x)
    x[3, 70] = np.nan
    after = run_tiles(layer, x)
    assert after[3].isnan().all()
    assert torch.equal(after[:3], before[:3])
    assert torch.equal(after[4:], before[4:])


def test_layers_that_are_not_whole_tiles_are_refused() -> None:
    with pytest.raises(ValueError, match="40 inputs and 32 outputs"):
        TileLayer(np.ones((40, 32), np.float32), np.ones(32, np.float32), 1, pool="tests")
