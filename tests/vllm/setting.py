"""Helpers of the vLLM tests: engines of any checkpoint, driven step by step, and access to their insides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engines.checkpoints.checkpoint import Checkpoint
from engines.t3.backend import T3Request
from engines.t3.decoder import T3Decoder
from engines.t3.vllm.decoder import VllmDecoder
from engines.t3.vllm.engine import VllmEngine, VllmSettings
from engines.t3.vllm.family import vllm_family
from engines.t3.vllm.model_dir import prepare_model_dir
from tests.engines.t3 import setting

VOICE_SLOTS = 8


def settings(**changed: Any) -> VllmSettings:
    usual = {
        "max_streams": 4,
        "max_positions": 1000,
        "prefill_chunk_positions": 64,
        "dtype": "float32",
        "cuda_graphs": False,
        "gpu_memory_utilization": 0.9,
        "kv_blocks": 256,
    }
    return VllmSettings(**(usual | changed))


def vllm_decoder(
    folder: Path, checkpoint: Checkpoint | None = None, loras: Sequence[Path] = (), **changed: Any
) -> VllmDecoder:
    """A decoder with its engine built; raises what the build raised."""
    checkpoint = checkpoint or setting.checkpoint()
    family = vllm_family(checkpoint.spec.t3, VOICE_SLOTS)
    model = prepare_model_dir(checkpoint, family, folder, loras)
    decoder = VllmDecoder(
        lambda: VllmEngine(model, family, settings(**changed)), wait=lambda _: True, rules=family.rules.end
    )
    decoder.step()
    decoder.ready.result()
    return decoder


def drawn(seed: int, **options: Any) -> T3Request:
    """A request that samples, among few tokens.

    Logits of two implementations, or of two batches, differ by some 1e-5. Where a draw falls among hundreds of tokens
    that is enough for another one about once in a thousand; among twenty it is not.
    """
    return setting.request(seed, **({"top_k": 20, "top_p": 1.0} | options))


def torch_decoder() -> T3Decoder:
    """The torch decoder on the same weights."""
    return T3Decoder(setting.net(), setting.limits())


def engine(decoder: VllmDecoder) -> VllmEngine:
    assert isinstance(decoder.engine, VllmEngine)
    return decoder.engine


def scheduler(decoder: VllmDecoder) -> Any:
    return engine(decoder)._core.scheduler


def runner(decoder: VllmDecoder) -> Any:
    return engine(decoder)._core.model_executor.driver_worker.worker.model_runner


def read_resumed_as_prompts(decoder: VllmDecoder) -> None:
    """Correct vLLM 0.9.2's CPU attention for sequences that were preempted.

    It assumes that a sequence whose prompt is read reads a single row. A resumed sequence reads its drawn tokens again,
    many rows at once. A GPU's attention does not make this assumption.
    """
    (builder,) = runner(decoder).attn_metadata_builders
    reorder = builder.reorder_batch

    def mended(input_batch: Any, scheduled: Any) -> Any:
        lengths = dict(zip(input_batch.req_ids, input_batch.num_prompt_tokens.tolist(), strict=False))
        for index, request_id in enumerate(input_batch.req_ids):
            if scheduled.num_scheduled_tokens[request_id] > 1:
                input_batch.num_prompt_tokens[index] = 1 << 30
        reordered = reorder(input_batch, scheduled)
        for index, request_id in enumerate(input_batch.req_ids):
            input_batch.num_prompt_tokens[index] = lengths[request_id]
        return reordered

    builder.reorder_batch = mended


class Preemptions:
    """Records the ids of preempted requests in order."""

    def __init__(self, decoder: VllmDecoder) -> None:
        self.ids: list[str] = []
        waiting = scheduler(decoder).waiting
        prepend = waiting.prepend_request

        def noting(request: Any) -> None:
            self.ids.append(request.request_id)
            prepend(request)

        waiting.prepend_request = noting


class LogitsTap:
    """Wraps the installed sampler and keeps the logits of every row for which a token is drawn."""

    def __init__(self, decoder: VllmDecoder) -> None:
        self._runner = runner(decoder)
        self._sampler = self._runner.sampler
        self.logits: list[torch.Tensor] = []

    def __enter__(self) -> LogitsTap:
        self._runner.sampler = self
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.sampler = self._sampler

    def __call__(self, logits: torch.Tensor, sampling_metadata: object) -> Any:
        sampler = self._sampler.batch_sampler
        if due := sampler.batch.due():
            self.logits += list(sampler.logits(logits, due).clone())
        return self._sampler(logits=logits, sampling_metadata=sampling_metadata)


def split_at(decoder: VllmDecoder, asked: T3Request, first_chunk: int) -> torch.Tensor:
    """Logits of all draws when the first step reads `first_chunk` rows of the prompt, (draws, vocabulary)."""
    assert scheduler(decoder).reset_prefix_cache()
    usual = scheduler(decoder).max_num_scheduled_tokens
    decoder.add(asked)
    with LogitsTap(decoder) as tap:
        scheduler(decoder).max_num_scheduled_tokens = first_chunk
        decoder.step()
        scheduler(decoder).max_num_scheduled_tokens = usual
        while not decoder.idle:
            decoder.step()
    return torch.stack(tap.logits)
