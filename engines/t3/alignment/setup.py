"""Whether an engine can say when words are spoken, and by which heads; decided when the engine is built."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from engines.checkpoints.checkpoint import Checkpoint, default_cache_dir
from engines.config import EngineConfig
from engines.device import DeviceThread
from engines.errors import unsupported
from engines.kernels.dense import WeightFormat, fp16_supported
from engines.model_spec import T3Spec
from engines.t3.alignment.calibrate import find_heads, kept_heads
from engines.t3.alignment.lent import LentNet
from engines.t3.alignment.memory import words_bytes
from engines.t3.alignment.sources import ForcedAligner, TappedAligner
from engines.t3.alignment.tap import AlignmentHeads
from engines.t3.llama.lora import ADAPTER_FILE
from engines.t3.load import TorchNet, load_net
from engines.voice import Voice
from engines.words.source import Aligner

_log = logging.getLogger(__name__)
_OFF = "Word times are switched off on this server (word_times is off)."
_RANDOM = "The model's weights are random, so its speech has no words."
_NO_VOICE = "The model has no built-in voice to find its alignment with."
_NO_HEAD = "No attention head of this model follows the text, so the times of its words are not known."


@dataclass(frozen=True)
class Alignment:
    """The heads that align and how a net of them is loaded, or the reason why there are none."""

    heads: AlignmentHeads | None
    notice: str
    load: Callable[[int], TorchNet]

    def beside_bytes(self, spec: T3Spec, positions: int, *, lent: bool) -> int:
        """What reading words beside T3 takes of a GPU: `words_bytes` of the heads' layers."""
        return 0 if self.heads is None else words_bytes(spec, self.heads.net_layers, positions, lent=lent)

    def lendable(self) -> LentNet | None:
        """What an engine can lend its tensors to, for an aligner; None if no head aligns."""
        return None if self.heads is None else LentNet(self.heads.net_layers)

    def aligner(
        self,
        t3_calls_taps: bool,
        positions: int,
        on_device: DeviceThread,
        *,
        lent: LentNet | None = None,
        constrained: bool = False,
    ) -> Aligner | None:
        """The aligner for a T3 backend; None if no head aligns. One whose net calls no taps gets a net beside it.

        positions: of the longest sequence
        lent: what T3's engine lends a net to; None: the net beside T3 has tensors of its own

        Raises InvalidInput if the attention shall be constrained and cannot be.
        """
        if constrained and (self.heads is None or not t3_calls_taps):
            raise unsupported("attention", "constrained", "a model without aligned heads or T3 beside torch", "free")
        if self.heads is None:
            return None
        if t3_calls_taps:
            return TappedAligner(self.heads, constrained=constrained)
        if lent is None:
            lent = LentNet(self.heads.net_layers, self.load(self.heads.net_layers))
        return ForcedAligner(lent, self.heads, positions, on_device)


def find_alignment(
    config: EngineConfig,
    checkpoint: Checkpoint,
    device: str,
    encode: Callable[[str], Sequence[int]],
    voice: Voice | None,
) -> Alignment:
    """Find the heads of a checkpoint, from the cache or by speaking calibration texts."""

    def load(layers: int) -> TorchNet:
        weights: WeightFormat = "float16" if device == "cpu" and fp16_supported() else "float32"
        # beside T3, it takes half as much of a GPU's memory
        dtype = torch.float32 if device == "cpu" else torch.float16
        return load_net(checkpoint, device, weights=weights, dtype=dtype, layers=layers, loras=config.lora)

    if config.word_times == "off" or checkpoint.random_weights or voice is None:
        notice = _OFF if config.word_times == "off" else _RANDOM if checkpoint.random_weights else _NO_VOICE
        return Alignment(None, notice, load)

    def find() -> AlignmentHeads | None:
        assert voice is not None
        return find_heads(load(checkpoint.spec.t3.layers), encode, voice)

    adapters = [folder / ADAPTER_FILE for folder in config.lora]
    heads, found_now = kept_heads(checkpoint.t3_path, config.cache_dir or default_cache_dir(), find, adapters)
    if found_now:
        _log.info("word times: %s", _NO_HEAD if heads is None else f"T3's heads {heads.heads} follow the text")
    return Alignment(heads, "" if heads is not None else _NO_HEAD, load)
