"""The number of the flow's Euler steps: which nets a checkpoint's folder holds, and which of them an engine loads.

Standard and Multilingual are published with nets that take ten guided steps; Turbo and Nano with meanflow nets, which
were distilled from those to two steps. Both read the same speech tokens.
"""

from __future__ import annotations

from dataclasses import replace

from engines.checkpoints.checkpoint import Checkpoint
from engines.errors import unsupported
from engines.model_spec import (
    GUIDED_STEPS,
    MAX_S3GEN_PROMPT_TOKENS,
    MEANFLOW_FILE,
    MEANFLOW_STEPS,
    FlowSpec,
    ModelSpec,
    with_guided_flow,
    with_meanflow,
)
from engines.s3gen.cache.kv import token_bytes
from engines.s3gen.runtimes.cached import DEFAULT_CONTEXT_TOKENS

_OF = {str(MEANFLOW_STEPS): with_meanflow, str(GUIDED_STEPS): with_guided_flow}


def own_steps(spec: ModelSpec) -> str:
    """The value of `s3gen_steps` that a model was published with."""
    return str(spec.flow.steps)


def steps_held(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The values of `s3gen_steps` whose nets the folder holds, the model's own first."""
    others = (
        steps for steps, change in _OF.items() if (checkpoint.folder / change(checkpoint.spec).s3gen_name).is_file()
    )
    return tuple(dict.fromkeys((own_steps(checkpoint.spec), *others)))


def with_steps(checkpoint: Checkpoint, steps: str) -> Checkpoint:
    """The checkpoint with the nets that take this many steps; "auto": the model's own.

    Raises InvalidInput if its folder does not hold them.
    """
    own = own_steps(checkpoint.spec)
    if steps in ("auto", own):
        return checkpoint
    other = _OF[steps](checkpoint.spec)
    if steps not in steps_held(checkpoint):
        where = f"{checkpoint.spec.name} without {other.s3gen_name} in {checkpoint.folder}"
        raise unsupported("s3gen_steps", steps, where, f"auto or {own}")
    return replace(checkpoint, spec=other)


def steps_to_measure(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The values of `s3gen_steps` among which a device's speed may choose, the most faithful first.

    A model that was published with few steps is not given more.
    """
    held = steps_held(checkpoint)
    return held if checkpoint.spec.flow.guided_steps else held[:1]


def check_decode(checkpoint: Checkpoint, decode: str, device: str, host_bytes: int) -> None:
    """Raises InvalidInput for cached decoding with ten guided steps on a GPU, and on a CPU with too little memory: it
    needs ten times as much as with two, 9.2 MB for each token in float32."""
    if decode != "cached" or not checkpoint.spec.flow.guided_steps:
        return
    where, needed = f"{GUIDED_STEPS} guided steps of S3Gen", cached_bytes(checkpoint.spec.flow)
    if device != "cpu":
        raise unsupported("decode", decode, f"{where} on a GPU", "auto or reference")
    if needed > host_bytes:
        where += f" in {host_bytes / 1e9:.1f} GB of memory, of which a voice and a stream need {needed / 1e9:.1f},"
        raise unsupported("decode", decode, where, "auto or reference")


def cached_bytes(flow: FlowSpec) -> int:
    """The memory of cached decoding for a stream of a voice with the longest prompt: the prompt, the last tokens of the
    stream, and a block that awaits its commit."""
    return (MAX_S3GEN_PROMPT_TOKENS + 2 * DEFAULT_CONTEXT_TOKENS) * token_bytes(flow)


def worth_measuring(checkpoint: Checkpoint, decode: str, host_bytes: int) -> bool:
    """Whether the engine may choose to decode so by itself: guided caches take at most half of the memory."""
    flow = checkpoint.spec.flow
    return decode != "cached" or not flow.guided_steps or 2 * cached_bytes(flow) <= host_bytes


def steps_notice(published: Checkpoint, steps: str) -> str:
    """A sentence for people on the steps that an engine takes; empty for a model that was published with few."""
    if not published.spec.flow.guided_steps:
        return ""
    if steps in ("auto", own_steps(published.spec)):
        return f"S3Gen takes {GUIDED_STEPS} steps with guidance, as published."
    return (
        f"S3Gen takes {steps} steps with the nets of {MEANFLOW_FILE}, which sound different from the "
        f"{GUIDED_STEPS} steps as published."
    )
