"""What we add to vLLM's worker (`worker_extension_cls`): its sampler is replaced and voices are put into the model.

Methods are called by name through `collective_rpc`; `self` is vLLM 0.9.2's worker.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._dynamo import convert_frame
from vllm.v1.outputs import SamplerOutput

from engines.t3.vllm.sampler import BatchSampler, RunnerBatch


class WorkerExtension:
    """Names start with `mynah_`: vLLM refuses an extension that hides a method of its worker."""

    model_runner: Any

    def mynah_install_sampler(self, slots: int) -> None:
        """From here on tokens are drawn as upstream draws them. `slots` is the most rows a batch can have."""
        runner = self.model_runner
        runner.sampler = _VllmSampler(BatchSampler(RunnerBatch(runner), slots, runner.device))

    def mynah_set_voice(self, slot: int, speaker_embedding: torch.Tensor) -> None:
        """speaker_embedding (256,) float32 -> the row that the voice's id is embedded to."""
        self.model_runner.model.set_voice(slot, speaker_embedding)

    def mynah_unload(self) -> None:
        """Empty the model and its KV cache, whoever still refers to them. The worker is useless afterwards.

        vLLM expects its process to end. A compiled model stays registered with torch's compiler for ever, and with it
        weights, cache and CUDA graphs; an engine built after it would not find the memory.
        """
        runner = self.model_runner
        _unhook(runner.model.transformer)
        runner.kv_caches.clear()
        for module in runner.model.modules():
            if hasattr(module, "kv_cache"):
                module.kv_cache = []
        for tensor in (*runner.model.parameters(), *runner.model.buffers()):
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)


def _unhook(compiled: torch.nn.Module) -> None:
    """Take a model's bytecode hook, which vLLM adds and forgets, away from torch's compiler."""
    hooks = convert_frame._bytecode_hooks
    for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is compiled]:
        del hooks[key]


class _VllmSampler:
    """BatchSampler in the shape of vLLM's: called with logits, answers with SamplerOutput."""

    def __init__(self, batch_sampler: BatchSampler) -> None:
        self.batch_sampler = batch_sampler

    def __call__(self, logits: torch.Tensor, sampling_metadata: object) -> SamplerOutput:
        tokens = self.batch_sampler.tokens(logits)
        # on the host, where vLLM reads them next
        return SamplerOutput(sampled_token_ids=torch.tensor(tokens, dtype=torch.int32)[:, None], logprobs_tensors=None)
