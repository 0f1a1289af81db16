"""The flow: speech tokens to mel through encoder.py and cfm.py, and the loading of their weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from engines.checkpoints.weights import check_tensors, load_tensors
from engines.model_spec import MEL_FRAMES_PER_TOKEN, FlowSpec, ModelSpec
from engines.s3gen.nets.cfm import Estimator, EulerSolver
from engines.s3gen.nets.encoder import Positions, TokenEncoder
from engines.s3gen.stopwatch import Stopwatch

PREFIX = "flow."  # of its tensors in S3Gen's file
_ESTIMATOR = "decoder.estimator."
Shape = tuple[int, ...]


class Flow(nn.Module):
    """Encoder and CFM; exports and cached decoding call the two separately."""

    def __init__(self, spec: FlowSpec) -> None:
        super().__init__()
        self.encoder = TokenEncoder(spec)
        self.solver = EulerSolver(Estimator(spec))
        self.cfm = Stopwatch()  # of all calls of the solver; on a GPU only the time to launch it

    def forward(
        self,
        tokens: Tensor,
        token_lengths: Tensor | None,
        prompt_mel: Tensor,
        noise: Tensor,
        x_vector: Tensor,
        positions: Positions | None = None,
    ) -> Tensor:
        """Shapes as in runtime.FlowBatch; token_lengths None if all rows are full -> mel (B, 2N, 80) float32,
        prompt frames included, zero in the pad.
        """
        mu, speaker = self.encoder(tokens, token_lengths, x_vector, positions)
        frame_lengths = None if token_lengths is None else token_lengths * MEL_FRAMES_PER_TOKEN
        with self.cfm:
            mel: Tensor = self.solver(noise, mu, speaker, prompt_mel, frame_lengths)
        return mel


def expected_tensors(spec: ModelSpec) -> dict[str, Shape]:
    """Every tensor under `PREFIX` and its shape."""
    with torch.device("meta"):
        flow = Flow(spec.flow)
    return {part + name: tuple(tensor.shape) for part, net in _parts(flow) for name, tensor in net.state_dict().items()}


def load_flow(path: Path, spec: ModelSpec, prepare: Callable[[nn.Module], None] | None = None) -> Flow:
    """The flow with the weights of upstream's file, memory-mapped.

    `prepare` is called with each of the two nets as soon as it is loaded. If it replaces all of a net's tensors, that
    part of the file is unmapped before the next is read, so that never both nets are in memory twice.
    Raises CheckpointError as `load_tensors`, for both nets at once.
    """
    check_tensors(path, expected_tensors(spec), prefix=PREFIX)
    with torch.device("meta"):
        flow = Flow(spec.flow)
    for part, net in _parts(flow):
        shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
        net.load_state_dict(load_tensors(path, shapes, prefix=PREFIX + part), assign=True)
        net.eval().requires_grad_(False)
        if prepare is not None:
            prepare(net)
    return flow.eval()


def _parts(flow: Flow) -> tuple[tuple[str, nn.Module], ...]:
    """The two nets, each behind the prefix of its tensors' names under `PREFIX`."""
    return ("", flow.encoder), (_ESTIMATOR, flow.solver.estimator)
