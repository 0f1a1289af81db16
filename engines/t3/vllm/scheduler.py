"""vLLM 0.9.2's V1 scheduler, ordered by the priorities of priority.py (`scheduler_cls` in vLLM's arguments)."""

from __future__ import annotations

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from engines.t3.vllm.priority import Priority, priority_after


class FirstWindowsFirst(Scheduler):  # type: ignore[misc]  # vLLM has no types where these are checked
    """vLLM's scheduler with a list of running requests that is always sorted by priority.

    The order does two things. Token budget and blocks go to the first ones. And when blocks run out, vLLM preempts
    the request of the lowest priority, which 0.9.2 does wrongly if that one was already scheduled in the same step
    (its blocks are given away while it still writes to them). In this order it never was.
    """

    running: list[Request]
    resting: frozenset[str] = frozenset()

    def rest(self, request_ids: frozenset[str]) -> None:
        """Draw nothing for these running requests until the next call; they keep their blocks and their places."""
        self.resting = request_ids

    def schedule(self) -> SchedulerOutput:
        for request in self.running:
            request.priority = priority_after(request.priority, request.num_output_tokens)
        self.running.sort(key=_order)
        resting = [request for request in self.running if request.request_id in self.resting]
        if not resting:
            return super().schedule()
        self.running = [request for request in self.running if request.request_id not in self.resting]
        self.max_num_running_reqs -= len(resting)  # their places are taken
        try:
            return super().schedule()
        finally:
            self.max_num_running_reqs += len(resting)
            self.running += resting

    def promote(self, request_id: str) -> None:
        """Give a request that was made ahead the priority of a current one. Idempotent, also after its end.

        A waiting or preempted request moves forward in the queue, which orders requests by the priority they had when
        they were added. A running one keeps its place in the batch and is no longer the first to be preempted.
        """
        request = self.requests.get(request_id)
        if request is None or request.priority != Priority.AHEAD:
            return
        queued = request.status != RequestStatus.RUNNING
        if queued:
            self.waiting.remove_request(request)
        request.priority = priority_after(Priority.FIRST_WINDOW, request.num_output_tokens)
        if queued:
            self.waiting.add_request(request)


def _order(request: Request) -> tuple[int, float]:
    return request.priority, request.arrival_time
