"""Every stage of an engine as a call that can be profiled alone: T3, S3Gen's three, a voice's conditioning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from engines.checkpoints.checkpoint import Checkpoint
from engines.conditioning.builder import VoiceBuilder
from engines.s3gen.runtime import Runtime
from engines.tools.engine_times import clip
from engines.tools.s3gen_times import WINDOWS, stage_calls
from engines.tools.t3_times import load_t3_calls


def stages(
    checkpoint: Checkpoint, runtime: Runtime, device: str, windows: Sequence[str]
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names and calls, one after the other, so that each stage's nets are gone before the next is loaded."""
    for window in windows:
        for stage, call in stage_calls(runtime, WINDOWS[window]).items():
            yield f"{stage}-{window}", call
    for name, step in load_t3_calls(checkpoint, device).items():
        yield f"t3-{name}", step
    builder, recording = VoiceBuilder(checkpoint), clip()
    builder.load()
    yield "conditioning", lambda: builder.build(recording, "profiled")
