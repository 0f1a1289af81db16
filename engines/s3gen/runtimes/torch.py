"""S3Gen on torch: the nets of flow.py and vocoder.py on the CPU or a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engines.checkpoints.checkpoint import Checkpoint
from engines.model_spec import MEL_FRAMES_PER_TOKEN, MEL_HOP_SAMPLES
from engines.packed_linear import packing_available
from engines.s3gen.cache.cached_flow import FlowBlocks
from engines.s3gen.nets.cfm import Estimator
from engines.s3gen.nets.compiled_cfm import compile_residuals, compile_transformers
from engines.s3gen.nets.compiled_vocoder import compile_residual_blocks
from engines.s3gen.nets.encoder import PositionCache
from engines.s3gen.nets.flow import Flow, load_flow
from engines.s3gen.nets.layers import join_projections, lay_out_taps
from engines.s3gen.nets.packing import pack
from engines.s3gen.nets.vocoder import Vocoder
from engines.s3gen.nets.vocoder_weights import load_vocoder
from engines.s3gen.runtime import F32, FlowBatch, VocoderBatch, VocoderResult

_log = logging.getLogger(__name__)

_CPU_BLOCK_FRAMES = 128
_CPU_PADDING_RATIO = 1.1


class TorchRuntime:
    """A Runtime on torch.

    On the CPU only rows of about the same length share a call, because sharing saves little there and padding costs
    time. On a GPU a batch is one padded call. `dtype` is the precision of the flow and of the vocoder's filter; times,
    f0, phase and Fourier transform are always float32.
    Raises CheckpointError as `load_tensors` does.
    """

    name = "torch"

    def __init__(self, checkpoint: Checkpoint, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self._device = torch.device(device)
        on_cpu = self._device.type == "cpu"
        if on_cpu and dtype == torch.float32:
            self._flow, self._vocoder = _load_for_cpu(checkpoint)
        else:
            self._flow = load_flow(checkpoint.s3gen_path, checkpoint.spec)
            self._vocoder = load_vocoder(checkpoint.s3gen_path, checkpoint.spec)
        if on_cpu:
            self._flow.encoder.attend_in_blocks(_CPU_BLOCK_FRAMES)
        self._flow.to(self._device, dtype)
        if not on_cpu:
            lay_out_taps(self._flow)  # on a CPU they are packed
            join_projections(self._flow)
        self._vocoder.to(self._device).to_filter_dtype(dtype)
        self._positions = PositionCache(self._flow.encoder)
        self._flow_spec = checkpoint.spec.flow

    @property
    def cfm_s(self) -> float | None:
        """As Runtime.cfm_s."""
        return self._flow.cfm.total_s if self._device.type == "cpu" else None

    def flow_blocks(self) -> FlowBlocks:
        """The same flow, block by block. Call it from the same thread: the two share the projected positions."""
        return FlowBlocks(self._flow, self._flow_spec, self._positions)

    def new_positions(self) -> PositionCache:
        """Memory for projected positions that only its owner makes larger."""
        return PositionCache(self._flow.encoder)

    @torch.inference_mode()
    def flow(self, batch: FlowBatch) -> F32:
        mel = np.zeros(batch.noise.shape, np.float32)
        for rows, tokens in self._calls(batch.token_lengths):
            frames = tokens * MEL_FRAMES_PER_TOKEN
            result = self._flow(
                self._put(batch.tokens[rows, :tokens]),
                self._lengths(batch.token_lengths[rows], tokens),
                self._put(batch.prompt_mel[rows, :frames]),
                self._put(batch.noise[rows, :frames]),
                self._put(batch.x_vector[rows]),
                self._positions.get(tokens),
            )
            mel[rows, :frames] = result.cpu().numpy()
        return mel

    def parts(self, batch: FlowBatch) -> dict[str, Callable[[], object]]:
        """As s3gen_times.InParts."""
        tokens, prompt_mel, noise, x_vector = (
            self._put(array) for array in (batch.tokens, batch.prompt_mel, batch.noise, batch.x_vector)
        )

        @torch.inference_mode()
        def encode() -> tuple[Tensor, Tensor]:
            positions = self._positions.get(tokens.shape[1])
            mu, speaker = self._flow.encoder(tokens, None, x_vector, positions)
            float(mu[0, 0, 0])  # waits for a GPU
            return mu, speaker

        mu, speaker = encode()

        @torch.inference_mode()
        def solve() -> float:
            return float(self._flow.solver(noise, mu, speaker, prompt_mel, None)[0, 0, 0])

        return {"encoder": encode, "cfm": solve}

    @torch.inference_mode()
    def vocoder(self, batch: VocoderBatch) -> VocoderResult:
        waveform, f0_hz = np.zeros(batch.noise.shape, np.float32), np.zeros(batch.mel.shape[:2], np.float32)
        for rows, frames in self._calls(batch.lengths):
            samples = frames * MEL_HOP_SAMPLES
            wave, f0 = self._vocoder(
                self._put(batch.mel[rows, :frames]),
                self._lengths(batch.lengths[rows], frames),
                self._put(batch.fixed_f0_hz[rows, :frames]),
                self._put(batch.fixed_frames[rows]),
                self._put(batch.phase_cycles[rows]),
                self._put(batch.harmonic_cycles[rows]),
                self._put(batch.noise[rows, :samples]),
                batch.margins,
            )
            waveform[rows, :samples], f0_hz[rows, :frames] = wave.cpu().numpy(), f0.cpu().numpy()
        return VocoderResult(waveform, f0_hz)

    def _calls(self, lengths: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
        """The rows of each call, and the length that they are cut to."""
        rows = np.argsort(lengths, kind="stable")
        while len(rows):
            shared = lengths[rows] <= _CPU_PADDING_RATIO * lengths[rows[0]]
            if self._device.type != "cpu":
                shared[:] = True
            yield rows[shared], int(lengths[rows[shared]].max())
            rows = rows[~shared]

    def _put(self, array: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> Tensor:
        return torch.tensor(array, device=self._device)

    def _lengths(self, lengths: npt.NDArray[np.int64], longest: int) -> Tensor | None:
        return None if (lengths == longest).all() else self._put(lengths)


def _load_for_cpu(checkpoint: Checkpoint) -> tuple[Flow, Vocoder]:
    """The nets in float32, with compiled kernels and packed weights if this machine has them."""
    reasons: dict[str, None] = {}

    def prepare(net: nn.Module) -> None:
        if isinstance(net, Estimator):
            reasons[compile_transformers(net) or ""] = None
            reasons[compile_residuals(net) or ""] = None
        if packing_available():
            pack(net, tiles=True)

    flow = load_flow(checkpoint.s3gen_path, checkpoint.spec, prepare)
    vocoder = load_vocoder(checkpoint.s3gen_path, checkpoint.spec)
    reasons[compile_residual_blocks(vocoder) or ""] = None
    if why := "; ".join(filter(None, reasons)):
        _log.warning("S3Gen takes up to twice as long on this CPU: %s", why)
    return flow, vocoder
