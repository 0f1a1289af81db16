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
    MEANFLOW_FILE,
    MEANFLOW_STEPS,
    ModelSpec,
    with_guided_flow,
    with_meanflow,
)

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


def check_decode(checkpoint: Checkpoint, decode: str, device: str) -> None:
    """Raises InvalidInput for cached decoding with ten guided steps on a GPU: it would need ten times the memory, 9 MB
    for each token of a stream and 2.3 GB for a voice in float32."""
    if decode == "cached" and checkpoint.spec.flow.guided_steps and device != "cpu":
        raise unsupported("decode", decode, f"{GUIDED_STEPS} guided steps of S3Gen on a GPU", "auto or reference")


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
