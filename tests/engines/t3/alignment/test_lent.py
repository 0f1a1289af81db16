"""A net that is lent is used until it is taken back, and nothing keeps it then."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from engines.errors import EngineFailure
from engines.model_spec import TINY
from engines.t3.alignment.lent import LentNet
from engines.t3.load import TorchNet
from engines.t3.model import T3Net


def test_a_failed_call_keeps_nothing_of_the_net_however_long_its_error_is_kept():
    net = T3Net.without_weights(TINY)
    lent, kept = LentNet(3), weakref.ref(net)
    lent.lend(net)
    del net

    def work(one: TorchNet) -> None:
        blocks = one._blocks
        raise ArithmeticError(f"{len(blocks)} blocks")

    with pytest.raises(ArithmeticError) as failure:
        lent.call(work)
    lent.take_back()
    gc.collect()
    assert kept() is None
    assert "blocks" in str(failure.value)


def test_it_is_taken_back_behind_the_calls_that_run_and_later_ones_wait_for_the_next():
    lent, first, second = LentNet(3), T3Net.without_weights(TINY), T3Net.without_weights(TINY)
    lent.lend(first)
    running, may_end = threading.Event(), threading.Event()

    def work(net: TorchNet) -> TorchNet:
        running.set()
        assert may_end.wait(60)
        return net

    with ThreadPoolExecutor(3) as threads:
        before = threads.submit(lent.call, work)
        assert running.wait(60)
        back = threads.submit(lent.take_back)
        with pytest.raises(TimeoutError):
            back.result(0.01)
        may_end.set()
        back.result(60)
        assert before.result(60) is first
        after = threads.submit(lent.call, work)
        lent.lend(second)
        assert after.result(60) is second


def test_those_that_wait_for_a_net_fail_at_the_end():
    lent = LentNet(3)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(lent.call, lambda net: net)
        lent.end()
        with pytest.raises(EngineFailure, match="words are read no more"):
            waiting.result(60)
    lent.end()
