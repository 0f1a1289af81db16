"""The flow: speech tokens to mel, encoder and CFM together, and where their weights lie in upstream's file.

Knows which part of the file belongs to which net; the nets themselves are encoder.py and cfm.py.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from engines.config import MEL_FRAMES_PER_TOKEN, FlowSpec, ModelSpec
from engines.s3gen.cfm import Estimator, EulerSolver
from engines.s3gen.encoder import Positions, TokenEncoder
from engines.weights import load_tensors

PREFIX = "flow."  # of its tensors in S3Gen's file
_ESTIMATOR = "decoder.estimator."
Shape = tuple[int, ...]


class Flow(nn.Module):
    """`encoder` and `solver.estimator` are nets in their own right; exports and cached decoding call them apart."""

    def __init__(self, spec: FlowSpec) -> None:
        super().__init__()
        self.encoder = TokenEncoder(spec)
        self.solver = EulerSolver(Estimator(spec))

    def forward(
        self,
        tokens: Tensor,
        token_lengths: Tensor | None,
        prompt_mel: Tensor,
        noise: Tensor,
        x_vector: Tensor,
        positions: Positions | None = None,
    ) -> Tensor:
        """Shapes as in runtime.FlowBatch; token_lengths None when all rows are full -> mel (B, 2N, 80) float32,
        prompt frames included, zero in the pad.
        """
        mu, speaker = self.encoder(tokens, token_lengths, x_vector, positions)
        frame_lengths = None if token_lengths is None else token_lengths * MEL_FRAMES_PER_TOKEN
        mel: Tensor = self.solver(noise, mu, speaker, prompt_mel, frame_lengths)
        return mel


def expected_tensors(spec: ModelSpec) -> dict[str, Shape]:
    """Every tensor under `PREFIX` and its shape."""
    with torch.device("meta"):
        flow = Flow(spec.flow)
    encoder, estimator = flow.encoder.state_dict(), flow.solver.estimator.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.items()}
    return shapes | {_ESTIMATOR + name: tuple(tensor.shape) for name, tensor in estimator.items()}


def load_flow(path: Path, spec: ModelSpec) -> Flow:
    """The flow with the weights of upstream's file, memory-mapped. Raises CheckpointError as `load_tensors` does."""
    tensors = load_tensors(path, expected_tensors(spec), prefix=PREFIX)
    with torch.device("meta"):
        flow = Flow(spec.flow)
    estimator = {name.removeprefix(_ESTIMATOR): t for name, t in tensors.items() if name.startswith(_ESTIMATOR)}
    encoder = {name: t for name, t in tensors.items() if not name.startswith(_ESTIMATOR)}
    flow.solver.estimator.load_state_dict(estimator, assign=True)
    flow.encoder.load_state_dict(encoder, assign=True)
    return flow.eval().requires_grad_(False)
