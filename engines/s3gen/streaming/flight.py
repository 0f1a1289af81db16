"""A batch of windows on its way through a runtime that starts calls and waits for them later.

Two batches overlap: the next one's flow is started when the vocoder of the one before it has been, and before its
samples are waited for. So the device computes while the host lays out the next batch and finishes the last. The flow is
not started earlier: on one queue of a device the vocoder of the batch before would wait for it, and with it the
listeners whose turn came first.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from engines.s3gen.noise import F32
from engines.s3gen.runtime import SubmittingRuntime, VocoderResult
from engines.s3gen.streaming.guards import WindowRejected
from engines.s3gen.streaming.segment_decoder import (
    Planned,
    Work,
    blocks_of,
    commit_windows,
    plan_vocoder,
    reference_batch,
    vocoder_batch,
)


class Flight:
    """One batch: `take_off`, `cross` and `land`, in this order, on the runtime's thread.

    on_stage: receives the host's seconds for flow and vocoder, waiting included
    """

    def __init__(
        self, runtime: SubmittingRuntime, work: Work, on_stage: Callable[[str, float], None] = lambda stage, s: None
    ) -> None:
        self._runtime, self._work, self._on_stage = runtime, work, on_stage
        self._flow_s = self._vocoder_s = 0.0
        self._mel: Callable[[], F32] | None = None
        self._planned: Planned = []
        self._rendered: Callable[[], VocoderResult] | None = None

    def take_off(self) -> None:
        """Start the flow."""
        began_s = time.perf_counter()
        self._mel = self._runtime.submit_flow(reference_batch(self._work))
        self._flow_s = time.perf_counter() - began_s

    def cross(self) -> None:
        """Wait for the flow and start the vocoder."""
        assert self._mel is not None
        began_s = time.perf_counter()
        blocks = blocks_of(self._work, self._mel())
        self._on_stage("flow", self._flow_s + time.perf_counter() - began_s)
        began_s = time.perf_counter()
        self._planned = plan_vocoder(self._work, blocks)
        batch = vocoder_batch(self._planned)
        if batch is not None:
            self._rendered = self._runtime.submit_vocoder(batch)
        self._vocoder_s = time.perf_counter() - began_s

    def land(self) -> list[F32 | WindowRejected]:
        """Wait for the vocoder. As decode_windows' result."""
        began_s = time.perf_counter()
        rendered = None if self._rendered is None else self._rendered()
        if rendered is not None:
            self._on_stage("vocoder", self._vocoder_s + time.perf_counter() - began_s)
        return commit_windows(self._work, self._planned, rendered)
