"""T3's torch net whose steps run on fixed memory, as CUDA graphs on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engines.checkpoints.checkpoint import Checkpoint
from engines.device import T3_PRIORITY, CudaGraphs
from engines.t3.backend import T3Request
from engines.t3.decoder import DecoderLimits
from engines.t3.gpu.memory import check_static_fits
from engines.t3.gpu.step import StaticPass
from engines.t3.model import T3Net
from engines.t3.net import Span
from engines.t3.parity import Comparison, T3ParityCheck, supported
from engines.t3.passes import PassRow
from engines.t3.vllm.memory import s3gen_bytes


class StaticT3Net(T3Net):
    """T3Net with a StaticPass for a decoder's steps."""

    name = "torch_graphs"
    captures = True  # on a GPU
    checked: StaticPass | None = None  # a pass that nothing uses any more, for the next `new_pass` of its size

    def new_pass(self, slots: int, max_positions: int) -> StaticPass:
        """As Net.new_pass."""
        checked, self.checked = self.checked, None
        if checked is not None and checked.size == (slots, max_positions):
            return checked  # what was compared is what serves, and graphs are captured once
        captures = self.captures and self.device.type == "cuda"
        graphs = CudaGraphs(self.device, T3_PRIORITY) if captures else None
        return StaticPass(self, slots, max_positions, graphs)


def open_static_net(
    checkpoint: Checkpoint, device: str, limits: DecoderLimits, *, half: bool, captures: bool = True, words: int = 0
) -> StaticT3Net:
    """The net for a decoder with these limits; in float16 with `half`, else in float32.

    On a GPU its steps are compared with T3's eager net in float32 first, replayed if they are to be: as many together
    as there are streams. `words`: bytes that are left for reading words.
    Raises T3Refused if they differ, InvalidInput if the GPU cannot hold the streams,
    CheckpointError.
    """
    spec, target = checkpoint.spec.t3, torch.device(device)
    positions = min(limits.max_positions, spec.positions)
    if target.type == "cuda":
        sizes = {"max_streams": limits.max_streams, "max_positions": positions, "bytes_per_value": 2 if half else 4}
        sizes |= {"s3gen": s3gen_bytes(checkpoint.spec.flow), "words": words}
        check_static_fits(spec, torch.cuda.get_device_properties(target).total_memory, **sizes)
    dtype = torch.float16 if half else torch.float32
    net = StaticT3Net.load(checkpoint.t3_path, checkpoint.spec, target, dtype=dtype)
    net.captures = captures
    if target.type == "cuda" and supported(spec, positions):
        check = T3ParityCheck(T3Net.load(checkpoint.t3_path, checkpoint.spec, target))
        torch.cuda.empty_cache()
        check_static_net(check, net, limits.max_streams, positions)
    return net


def check_static_net(check: T3ParityCheck, net: StaticT3Net, streams: int, positions: int) -> list[Comparison]:
    """Compare the net's steps with the check's; they are the next decoder's. Raises T3Refused."""
    steps = net.new_pass(streams, positions)
    dtype = str(net.dtype).removeprefix("torch.")
    comparisons = check.raise_if_wrong(ForcedSteps(net, steps), dtype, streams, net.name)
    net.checked = steps
    return comparisons


class ForcedSteps:
    """A StaticPass as the parity check drives it; see t3.parity.ForcedEngine."""

    def __init__(self, net: T3Net, steps: StaticPass) -> None:
        """`steps` must not be in use."""
        self._net, self._steps = net, steps
        self._prefix: Tensor | None = None

    @torch.inference_mode()
    def forced_logits(self, requests: Mapping[str, T3Request], codes: Sequence[int]) -> dict[str, list[Tensor]]:
        """As ForcedEngine.forced_logits. All requests have the same voice, whose prefix is read once."""
        slots = {name: self._steps.new_slot(index) for index, name in enumerate(requests)}
        logits: dict[str, list[Tensor]] = {name: [] for name in requests}
        for index, (name, request) in enumerate(requests.items()):
            slot = slots[name]
            prompt = self._net.embed_prompt(request.voice, request.text_tokens)
            slot.reserve(len(prompt) + len(codes))
            if self._prefix is not None:
                slot.load(self._prefix)
            self._steps.begin(index, request.sampling)
            rest = prompt[slot.length :]
            self._steps.run([PassRow(Span(slot, slot.length, len(rest)), index, chunk=rest)])
            slot.length = len(prompt)
            self._prefix = slot.copy_out(self._net.prefix_positions(request.voice))
            logits[name].append(self._steps.logits[index].to("cpu", copy=True))
        for code in codes[:-1]:
            rows = []
            for index, slot in enumerate(slots.values()):
                self._steps.force(index, code)
                rows.append(PassRow(Span(slot, slot.length, 1), index, token=code))
            self._steps.run(rows)
            for index, name in enumerate(requests):
                slots[name].length += 1
                logits[name].append(self._steps.logits[index].to("cpu", copy=True))
        for slot in slots.values():
            slot.clear()
        return logits
