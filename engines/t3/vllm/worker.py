"""The extension of vLLM's worker (`worker_extension_cls`): it replaces the sampler and writes voices into the model.

Methods are called by name through `collective_rpc`; `self` is vLLM 0.9.2's worker.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch._dynamo import convert_frame
from vllm.v1.outputs import SamplerOutput

from engines.device import wait_until_done
from engines.model_spec import T3Spec
from engines.t3.load import TorchNet
from engines.t3.vllm.family import VllmFamily
from engines.t3.vllm.sampler import BatchSampler, RunnerBatch
from engines.voice import Voice


class WorkerExtension:
    """Names start with `mynah_` because vLLM rejects an extension that hides a method of its worker."""

    model_runner: Any

    def mynah_install_sampler(self, slots: int, family: VllmFamily) -> None:
        """Draw tokens as upstream does from now on. `slots` is the largest number of rows of a batch."""
        runner = self.model_runner
        guided = runner.model.guided_logits if family.rules.guided else None
        sampler = BatchSampler(
            RunnerBatch(runner), slots, runner.device, ids=family.ids, rules=family.rules, guided=guided
        )
        runner.sampler = _VllmSampler(sampler)

    def mynah_set_voice(self, slot: int, voice: Voice) -> None:
        """Write the table's rows of a voice."""
        self.model_runner.model.set_voice(slot, voice)

    def mynah_net(self, spec: T3Spec, layers: int) -> TorchNet:
        """A torch net of the model's first layers, on views of its tensors."""
        net: TorchNet = self.model_runner.model.net(spec, layers)
        return net

    def mynah_force(self, tokens: list[int]) -> None:
        """Draw these tokens for every request from now on, and keep the logits, until `mynah_forced_logits`."""
        self.model_runner.sampler = _ForcedSampler(self.model_runner.sampler, tokens)

    def mynah_forced_logits(self) -> dict[str, list[torch.Tensor]]:
        """The logits of each request's steps, (vocabulary,) float32 on the host. Draws as before from now on."""
        forced: _ForcedSampler = self.model_runner.sampler
        self.model_runner.sampler = forced.sampler
        return forced.logits

    def mynah_unload(self) -> None:
        """Free the memory of the model and its KV cache although there are references to them. Call it last.

        vLLM expects its process to end. A compiled model stays registered with torch's compiler, and with it weights,
        cache and CUDA graphs; there would be no memory for an engine that is built after it.
        """
        runner = self.model_runner
        _unhook(runner.model.compiled)
        runner.kv_caches.clear()
        for module in runner.model.modules():
            if hasattr(module, "kv_cache"):
                module.kv_cache = []
        for tensor in (*runner.model.parameters(), *runner.model.buffers()):
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        _forget_graph_pool()


def _forget_graph_pool() -> None:
    """Let the next engine capture into a pool of its own. Torch refuses one whose graphs are gone while a block of it
    is held. The module is there only where a model was compiled."""
    backends = sys.modules.get("vllm.compilation.backends")
    if backends is not None:
        backends.global_graph_pool = None  # type: ignore[attr-defined]


def _unhook(compiled: torch.nn.Module) -> None:
    """Remove a model's bytecode hook, which vLLM adds and never removes, from torch's compiler."""
    hooks = convert_frame._bytecode_hooks
    for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is compiled]:
        del hooks[key]


class _ForcedSampler:
    """Draws given tokens, and keeps the logits."""

    def __init__(self, sampler: _VllmSampler, tokens: list[int]) -> None:
        self.sampler, self._tokens = sampler, tokens
        self.logits: dict[str, list[torch.Tensor]] = {}

    def __call__(self, logits: torch.Tensor, sampling_metadata: object) -> SamplerOutput:
        sampler = self.sampler.batch_sampler
        tokens, rows = [0] * sampler.batch.size, sampler.batch.due()
        wait_until_done(sampler.device)  # see BatchSampler.tokens
        if rows:
            for row, of_row in zip(rows, sampler.logits(logits, rows), strict=True):
                self.logits.setdefault(row.request_id, []).append(of_row.float().cpu())
                tokens[row.index] = sampler.ids.drawn(self._tokens[len(row.drawn)], len(row.drawn))
        return SamplerOutput(sampled_token_ids=torch.tensor(tokens, dtype=torch.int32)[:, None], logprobs_tensors=None)


class _VllmSampler:
    """BatchSampler with the interface of vLLM's sampler."""

    def __init__(self, batch_sampler: BatchSampler) -> None:
        self.batch_sampler = batch_sampler

    def __call__(self, logits: torch.Tensor, sampling_metadata: object) -> SamplerOutput:
        tokens = self.batch_sampler.tokens(logits)
        # on the host, where vLLM reads them
        return SamplerOutput(sampled_token_ids=torch.tensor(tokens, dtype=torch.int32)[:, None], logprobs_tensors=None)
