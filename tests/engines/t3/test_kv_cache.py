"""The KV cache: its memory grows with need up to the limit, and keeps its content."""

from __future__ import annotations

import torch

from engines.model_spec import TINY
from engines.t3.kv_cache import KvSlot, PrefixCache, SlotPool
from tests.engines.t3.setting import CPU

HEADS, DIM = TINY.t3.heads, TINY.t3.width // TINY.t3.heads


def filled(rows: int, slot: KvSlot | None = None) -> tuple[KvSlot, torch.Tensor]:
    slot = slot or KvSlot(TINY.t3, 2048, CPU)
    content = torch.randn(TINY.t3.layers, rows, 2, HEADS, DIM)
    slot.reserve(rows)
    for layer in range(TINY.t3.layers):
        slot.write(layer, 0, content[layer])
    slot.length = rows
    return slot, content.permute(0, 2, 3, 1, 4)  # (layers, 2, heads, rows, dim)


def test_a_write_returns_everything_up_to_its_end() -> None:
    slot, content = filled(10)
    slot.reserve(12)
    more = torch.randn(2, 2, HEADS, DIM)
    keys, values = slot.write(1, 10, more)
    assert keys.shape == values.shape == (1, HEADS, 12, DIM)
    torch.testing.assert_close(keys[0, :, :10], content[1, 0])
    torch.testing.assert_close(values[0, :, 10:], more[:, 1].transpose(0, 1))


def test_a_cache_in_float16_gives_rows_as_they_were_but_for_its_rounding() -> None:
    slot, content = filled(10, KvSlot(TINY.t3, 2048, CPU, torch.float32, torch.float16))
    assert slot.memory.dtype == torch.float16
    more = torch.randn(2, 2, HEADS, DIM) * torch.tensor([1.0, 1e6]).reshape(2, 1, 1, 1)
    slot.reserve(12)
    keys, values = slot.write(1, 10, more)
    assert keys.dtype == values.dtype == slot.keys(1, 0, 12).dtype == torch.float32
    half_steps = {"atol": 2**-25, "rtol": 2**-11}  # of the smallest numbers, and of all others
    torch.testing.assert_close(keys[0, :, :10], content[1, 0], **half_steps)
    torch.testing.assert_close(values[0, :, 10], more[0, 1], **half_steps)
    torch.testing.assert_close(values[0, :, 11], more[1, 1].clamp(-65504, 65504), **half_steps)


def test_a_prefix_that_is_written_over_is_not_shared_any_more() -> None:
    prefix, _ = filled(8)
    shared = prefix.copy_out(8)
    slot = KvSlot(TINY.t3, 2048, CPU)
    slot.load(shared)
    slot.reserve(12)
    slot.write(0, 8, torch.randn(2, 2, HEADS, DIM))
    assert slot.prefix is shared
    slot.write(0, 7, torch.randn(1, 2, HEADS, DIM))
    assert slot.prefix is None
    slot.load(shared)
    slot.clear()
    assert slot.prefix is None


def test_growing_keeps_what_is_written_and_stops_at_the_limit() -> None:
    slot, content = filled(100)
    assert slot.capacity < 300, "a short sequence takes little memory"
    for positions in (300, 1000, 2000, 2048):
        slot.reserve(positions)
        assert positions <= slot.capacity <= 2048
        torch.testing.assert_close(slot.copy_out(100), content)


def test_slots_allocate_on_demand_and_are_reused() -> None:
    pool = SlotPool(lambda _: KvSlot(TINY.t3, 2048, CPU), 3)
    index, slot = pool.take()
    assert slot.capacity == 0
    slot.reserve(500)
    slot.length = 400
    pool.give_back(index)
    again, same = pool.take()
    assert (again, same) == (index, slot)
    assert same.length == 0
    assert same.capacity >= 500
    assert pool.free == 2


def test_the_voice_not_used_for_longest_goes_first() -> None:
    entry = torch.zeros(1000)
    cache = PrefixCache(2 * entry.nbytes)
    cache.put("a", entry)
    cache.put("b", entry)
    assert cache.get("a") is not None
    cache.put("c", entry)
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.get("c") is not None
    assert cache.used_bytes <= 2 * entry.nbytes


def test_a_prefix_larger_than_the_budget_is_not_kept_and_drives_nothing_out() -> None:
    cache = PrefixCache(4000)
    cache.put("a", torch.zeros(1000))
    cache.put("b", torch.zeros(1001))
    assert cache.get("a") is not None
    assert cache.get("b") is None
    assert not PrefixCache(0).wants("a")
