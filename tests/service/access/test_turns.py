"""Turns on the event loop: what one pass may take, and who goes first. Time passes only in the work itself."""

from __future__ import annotations

import asyncio

import pytest

from service.access.turns import PASS_S, Account, Turns


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def passes(turns: Turns) -> None:
    """Lets the event loop go on until no turn waits."""
    while turns.waiting:  # noqa: ASYNC110 - counts passes
        await asyncio.sleep(0)


async def test_a_pass_takes_no_more_than_its_share_and_one_turn():
    clock, done = Clock(), 0
    turns = Turns(clock)

    def work() -> None:
        nonlocal done
        clock.now_s += 0.003
        done += 1

    for _ in range(1000):
        turns.submit(Account(), work)
    between = []
    while done < 1000:
        before = done
        await asyncio.sleep(0)  # a healthy stream's callback gets its turn in every pass
        between.append(done - before)
    assert max(between) <= PASS_S / 0.003 + 1
    await asyncio.sleep(0)
    assert turns.largest_pass_s <= PASS_S + 0.003


async def test_at_rest_a_turn_begins_at_once():
    turns, ran = Turns(Clock()), []
    assert turns.submit(Account(), lambda: ran.append(1))
    waiting = turns.wait(Account())
    with pytest.raises(StopIteration):
        waiting.send(None)
    assert ran == [1]


async def test_those_who_used_least_go_first():
    clock = Clock()
    turns, order = Turns(clock), []
    greedy, modest = Account(), Account()

    def work(name: str, cost_s: float) -> None:
        order.append(name)
        clock.now_s += cost_s

    for _ in range(5):
        turns.submit(greedy, lambda: work("greedy", 0.02))
    turns.submit(modest, lambda: work("modest", 0.0001))
    await passes(turns)
    assert order.index("modest") == 1  # behind the one that had begun


async def test_what_was_used_is_forgotten():
    account = Account()
    account.add(1.0, now_s=0.0)
    account.add(0.0, now_s=60.0)
    assert account.used_s < 0.01


async def test_tasks_take_turns_too():
    clock = Clock()
    turns, done = Turns(clock), 0

    async def task() -> None:
        nonlocal done
        account = Account()
        await turns.wait(account)
        with turns.spending(account):
            clock.now_s += 0.003
            done += 1

    tasks = [asyncio.create_task(task()) for _ in range(200)]
    between = []
    while done < 200:
        before = done
        await asyncio.sleep(0)
        between.append(done - before)
    await asyncio.gather(*tasks)
    assert max(between) <= 8  # those that begin at once, and those of which each reserved a part of the pass


async def test_a_task_that_is_cancelled_while_it_waits_leaves_the_others_alone():
    clock = Clock()
    turns = Turns(clock)
    with turns.spending(Account()):
        clock.now_s += 1.0
    waiting = [asyncio.create_task(turns.wait(Account())) for _ in range(3)]
    waiting[1].cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [False, True, False]


async def test_work_that_raises_does_not_stop_the_turns():
    clock = Clock()
    turns, ran = Turns(clock), []
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    with turns.spending(Account()):
        clock.now_s += 1.0

    def broken() -> None:
        raise RuntimeError

    turns.submit(Account(), broken)
    turns.submit(Account(), lambda: ran.append(1))
    await passes(turns)
    assert ran == [1]
