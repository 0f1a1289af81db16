"""A vLLM 0.9.2 V1 engine in this process: requests in, drawn tokens out, step by step.

It is built and used by one thread. Importing this file does not import vLLM.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engines.api import T3Use
from engines.device import wait_until_done
from engines.errors import InvalidInput
from engines.t3.alignment.lent import LentNet
from engines.t3.backend import T3Request
from engines.t3.vllm.family import VllmFamily
from engines.t3.vllm.priority import Priority
from engines.t3.vllm.sampler import NOT_FINITE_TOKEN, SETTINGS_KEY
from engines.t3.vllm.voices import VoiceSlots

VERSION = "0.9.2"
BLOCK_POSITIONS = 16
_PREFILL_ROWS = 128


@dataclass(frozen=True)
class VllmSettings:
    """The settings of an engine.

    max_streams              sequences decoded together; the others wait
    max_positions            prefix, text and speech of one sequence; fewer than the checkpoint's positions
    prefill_chunk_positions  rows, of prompts and of decoding sequences, that one step may read in all
    dtype                    float32 | float16 | bfloat16
    cuda_graphs              compile the model and replay CUDA graphs; a GPU only
    gpu_memory_utilization   vLLM's share of the GPU; a GPU only
    kv_blocks                size of the KV cache in blocks of 16 positions; None on a GPU: what the share leaves
    full_cuda_graphs         capture attention too, by the backend whose kernels can be: fewer launches, slower kernels
    """

    max_streams: int
    max_positions: int
    prefill_chunk_positions: int
    dtype: str
    cuda_graphs: bool
    gpu_memory_utilization: float
    kv_blocks: int | None
    full_cuda_graphs: bool = False

    def __post_init__(self) -> None:
        # a request that cannot fit would wait for ever; and vLLM keeps one block for itself
        min_blocks = 1 + -(-(self.max_positions + 1) // BLOCK_POSITIONS)
        if self.kv_blocks is not None and self.kv_blocks < min_blocks:
            allowed = f"at least {min_blocks}"
            message = f"kv_blocks is {self.kv_blocks}; a request of {self.max_positions} positions needs {allowed}."
            raise InvalidInput("kv_blocks", message, "KV_CACHE_TOO_SMALL", value=self.kv_blocks, allowed=allowed)


@dataclass(frozen=True)
class Drawn:
    """A token that a step drew for a request."""

    request_id: str
    token: int


class VllmEngine:
    """vLLM's engine with our model, sampler and scheduler. Raises what vLLM raises if it cannot be built."""

    def __init__(self, model_dir: Path, family: VllmFamily, settings: VllmSettings) -> None:
        self.prefilled_positions = 0  # prompt rows read so far; those taken from the prefix cache do not count
        self._cached_positions = 0  # those
        self._family = family
        self._llm = _build(model_dir, family, settings)
        self._core = self._llm.engine_core.engine_core
        self._voices = VoiceSlots(family.voice_slots)
        self._voice_of: dict[str, str] = {}  # request id -> voice key
        self._unread: dict[str, int] = {}  # request id -> prompt length, until its first token
        self._last_arrival_s = 0.0
        self._lent: LentNet | None = None

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        return not self._core.scheduler.has_requests()

    @property
    def free_kv_blocks(self) -> int:
        """Blocks that no request holds, cached ones among them."""
        return int(self._core.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    @property
    def kv_blocks(self) -> int:
        """Blocks of the KV cache that requests can have: vLLM keeps one for itself."""
        return int(self._core.scheduler.kv_cache_manager.block_pool.num_gpu_blocks) - 1

    @property
    def batch_sampler(self) -> Any:
        """What draws the tokens of a step, for tools that time it."""
        return self._core.model_executor.driver_worker.worker.model_runner.sampler.batch_sampler

    @property
    def use(self) -> T3Use:
        """The share of the KV cache in use, and how prompts were read so far."""
        held = self.kv_blocks - self.free_kv_blocks
        return T3Use(held / self.kv_blocks, self.prefilled_positions, self._cached_positions)

    def add(self, request_id: str, request: T3Request) -> None:
        """Queue a request. Raises what vLLM raises, or LookupError if no voice slot is free; nothing is kept then."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        slot = self._take_voice(request_id, request)
        prompt = self._family.prompt(slot, request)
        params = SamplingParams(
            temperature=0,  # vLLM prepares nothing for its own sampler; ours reads extra_args
            max_tokens=self._family.rules.end.uncounted_draws + request.sampling.max_speech_tokens,
            ignore_eos=True,  # speech_tokens.py decides where a segment ends
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args={SETTINGS_KEY: request.sampling},
        )
        try:
            self._llm.add_request(
                request_id,
                {"prompt_token_ids": prompt, "cache_salt": request.voice.key},
                params,
                arrival_time=self._arrival_s(),
                priority=Priority.AHEAD if request.made_ahead else Priority.FIRST_WINDOW,
            )
        except BaseException:
            self._forget(request_id)
            raise
        self._unread[request_id] = len(prompt)

    def promote(self, request_id: str) -> None:
        """Give a request that was made ahead the priority of a current one. Idempotent, also after its end."""
        self._core.scheduler.promote(request_id)

    def rest(self, request_ids: Iterable[str]) -> None:
        """Draw nothing for these requests in the next steps."""
        self._core.scheduler.rest(frozenset(request_ids))

    def abort(self, request_id: str) -> None:
        """End a request and free its blocks now. Idempotent, also after its end."""
        self._llm.abort_request([request_id])
        self._forget(request_id)

    def step(self) -> list[Drawn]:
        """Read the rows that are scheduled next and draw. An exception means that the engine is broken."""
        outputs = self._llm.step()
        for output in outputs:
            if (prompt_positions := self._unread.pop(output.request_id, None)) is not None:
                self.prefilled_positions += prompt_positions - output.num_cached_tokens
                self._cached_positions += output.num_cached_tokens
        return [
            Drawn(output.request_id, drawn if drawn == NOT_FINITE_TOKEN else self._family.ids.token(drawn))
            for output in outputs
            for drawn in output.outputs[0].token_ids
        ]

    def forced_logits(self, requests: Mapping[str, T3Request], tokens: Sequence[int]) -> Mapping[str, Sequence[Tensor]]:
        """The logits of each step, (vocabulary,) float32, of requests that "draw" the same tokens. While idle only."""
        self._llm.collective_rpc("mynah_force", args=(list(tokens),))
        try:
            for request_id, request in requests.items():
                self.add(request_id, request)
            while not self.idle:
                self.step()
        finally:
            (logits,) = self._llm.collective_rpc("mynah_forced_logits")
            for request_id in requests:
                self.abort(request_id)
        return dict(logits)

    def lend(self, nets: LentNet) -> None:
        """Lend a torch net of the model's first layers, on views of its tensors, until `close`."""
        (net,) = self._llm.collective_rpc("mynah_net", args=(self._family.spec, nets.layers))
        wait_until_done(net.device)  # what it made was put on this thread's stream
        self._lent = nets
        nets.lend(net)

    def close(self) -> None:
        """Free the engine's memory before returning. Call it once, and no method after it."""
        if self._lent is not None:
            self._lent.take_back()
        # a broken engine may fail in both calls, and is dropped all the same
        with contextlib.suppress(Exception):
            self._llm.collective_rpc("mynah_unload")
        with contextlib.suppress(Exception):
            self._core.shutdown()
        del self._llm, self._core
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _arrival_s(self) -> float:
        """The current time, never the same twice: for equal times vLLM would compare requests, which it cannot."""
        self._last_arrival_s = max(time.time(), self._last_arrival_s + 1e-6)
        return self._last_arrival_s

    def _take_voice(self, request_id: str, request: T3Request) -> int:
        voice = request.voice
        slot, missing = self._voices.take(voice.key)
        if missing:
            try:
                self._llm.collective_rpc("mynah_set_voice", args=(slot, voice))
            except BaseException:
                self._voices.discard(voice.key)
                raise
        self._voice_of[request_id] = voice.key
        return slot

    def _forget(self, request_id: str) -> None:
        self._unread.pop(request_id, None)
        key = self._voice_of.pop(request_id, None)
        if key is not None:
            self._voices.give_back(key)


def _build(model_dir: Path, family: VllmFamily, settings: VllmSettings) -> Any:
    _set_environment(settings.full_cuda_graphs)
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from engines.t3.vllm.plugin import register

    register()  # the entry point does the same, unless VLLM_PLUGINS leaves it out
    engine = LLMEngine.from_engine_args(EngineArgs(**_arguments(model_dir, settings)))
    engine.collective_rpc("mynah_install_sampler", args=(settings.max_streams, family))
    _add_statistics(engine.engine_core)
    return engine


def _add_statistics(client: Any) -> None:
    """Add the statistics that vLLM asserts after every step and does not make for one that only read part of a
    prompt."""
    get_output = client.get_output

    def with_statistics() -> Any:
        outputs = get_output()
        outputs.scheduler_stats = outputs.scheduler_stats or client.engine_core.scheduler.make_stats()
        return outputs

    client.get_output = with_statistics


def _arguments(model_dir: Path, settings: VllmSettings) -> dict[str, Any]:
    from engines.t3.vllm.plugin import TOKENIZER
    from engines.t3.vllm.scheduler import FirstWindowsFirst
    from engines.t3.vllm.worker import WorkerExtension

    return {
        "model": str(model_dir),
        "tokenizer": TOKENIZER,
        "tokenizer_mode": "custom",
        "generation_config": "vllm",
        "dtype": settings.dtype,
        # the last token drawn is never read, so a sequence has one token more than positions
        "max_model_len": settings.max_positions + 1,
        "max_num_seqs": settings.max_streams,
        "max_num_batched_tokens": settings.prefill_chunk_positions,
        "block_size": BLOCK_POSITIONS,
        "enable_prefix_caching": True,
        "prefix_caching_hash_algo": "sha256",  # the built-in hash can be made to collide, and voices are uploaded
        "scheduling_policy": "priority",
        "scheduler_cls": FirstWindowsFirst,
        "worker_extension_cls": f"{WorkerExtension.__module__}.{WorkerExtension.__qualname__}",
        "enforce_eager": not settings.cuda_graphs,
        "compilation_config": {"full_cuda_graph": True} if settings.full_cuda_graphs else {},
        # one graph per size; larger batches hold a long prefill, which is not launch-bound
        "cuda_graph_sizes": graph_sizes(settings.max_streams),
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "num_gpu_blocks_override": settings.kv_blocks,
        # it switches on with the number of streams of a voice, and changes their rounding
        "disable_cascade_attn": True,
        "disable_log_stats": False,  # vLLM's metrics are exported beside the service's
        "served_model_name": "t3",  # their label instead of the folder's path
    }


def graph_sizes(max_streams: int) -> list[int]:
    """Rows of the steps to capture: 1, 2, 4, then every 8 up to the first that holds all streams and a short prefill.

    The prompt of a voice whose prefix is cached is 20 to 100 rows.
    """
    sizes = [1, 2, 4]
    while sizes[-1] < max(max_streams, _PREFILL_ROWS):
        sizes.append(sizes[-1] // 8 * 8 + (8 if sizes[-1] < max_streams else 32))
    return sizes


_ATTENTION = "VLLM_ATTENTION_BACKEND"


def _set_environment(full_cuda_graphs: bool = False) -> None:
    """Set what vLLM reads from the environment only, some of it at import and some later."""
    if full_cuda_graphs:
        os.environ[_ATTENTION] = "TRITON_ATTN_VLLM_V1"  # FlashAttention 2 cannot be captured
    os.environ |= {
        "VLLM_USE_V1": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",  # do not report to vLLM's server
        "VLLM_CPU_OMP_THREADS_BIND": "all",  # leave the process's threads as they are
    }
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")  # GiB; a ceiling, `kv_blocks` decides
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")  # log as the process does
    os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")  # do not look up the machine's address
