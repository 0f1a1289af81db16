"""Who goes first in vLLM's scheduler: whoever's listener still waits for a first sound.

Knows vLLM 0.9.2's V1 scheduler (`scheduler_cls` in its arguments) and how urgent a request is; nothing else.
"""

from __future__ import annotations

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from engines.t3.vllm.priority import after_tokens


class FirstWindowsFirst(Scheduler):  # type: ignore[misc]  # vLLM has no types where these are checked
    """vLLM's scheduler over a list that is always in order of urgency.

    The order does two things. Token budget and blocks go to the urgent first. And when blocks run out, vLLM's
    priority policy preempts the least urgent request, which 0.9.2 does wrongly if that one was already scheduled in
    the same step (its blocks are given away while it still writes to them). In this order it never was.
    """

    def schedule(self) -> SchedulerOutput:
        for request in self.running:
            request.priority = after_tokens(request.priority, request.num_output_tokens)
        self.running.sort(key=_order)
        return super().schedule()


def _order(request: Request) -> tuple[int, float]:
    return request.priority, request.arrival_time
