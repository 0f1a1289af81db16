"""The T3 backend on vLLM's engine, in this process."""

from __future__ import annotations

import contextlib
import importlib.metadata
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from engines.api import NULL_OBSERVER, Observer
from engines.checkpoints.checkpoint import Checkpoint, default_cache_dir
from engines.config import DTYPES
from engines.device import PLAIN_THREAD, DeviceThread
from engines.errors import EngineFailure, InvalidInput
from engines.t3.alignment.lent import LentNet
from engines.t3.backend import T3Request
from engines.t3.generation import Generation
from engines.t3.load import check_weights, load_net
from engines.t3.parity import Comparison, T3ParityCheck
from engines.t3.step_loop import CLOSING, StepLoop
from engines.t3.vllm.decoder import VllmDecoder, rejected
from engines.t3.vllm.engine import BLOCK_POSITIONS, VERSION, VllmEngine, VllmSettings
from engines.t3.vllm.family import vllm_family
from engines.t3.vllm.memory import check_fits, memory_plan, s3gen_bytes
from engines.t3.vllm.model_dir import prepare_model_dir

_MAX_POSITIONS = 2048  # as the torch backend: 375 prompt tokens, 1000 speech tokens and some 670 text tokens
# Rows that a step may read, of all lanes: on a GPU some 10 ms of Turbo, well below the 40 ms that a token lasts. On a
# CPU vLLM is for tests.
_PREFILL_CHUNK_ROWS = {"cpu": 512, "cuda": 1024}
_VOICE_SLOTS = 256  # 2 kB each
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class VllmT3Backend:
    """T3Backend on vLLM 0.9.2.

    Up to `max_streams` requests are decoded together, the others wait; priority.py has their order. One request may
    take up to `max_positions` of the KV cache. Requests of a voice share the blocks of its prefix, which stay cached
    while there is room.

    dtype                   auto: float16 on a GPU, float32 on a CPU
    cuda_graphs             compile the model and capture CUDA graphs; without effect on a CPU
    gpu_memory_utilization  vLLM's share of the GPU; None: what `max_streams` need (memory.py)
    full_cuda_graphs        as VllmSettings.full_cuda_graphs; for the first backend of a process alone
    kv_blocks               KV cache in blocks of 16 positions; None: all that the share leaves, or enough on a CPU
    work_dir                parent of the folder that vLLM loads; None: in the cache folder
    on_health               called with `healthy` when it changes, on a thread of the backend
    on_device               the step thread's part in the use of the device
    alone                   the context in which an engine is built, while nothing else computes
    parity_check            compare every new engine with T3's torch net; None: on a GPU

    Raises CheckpointError if the weights do not fit the spec, InvalidInput if the configuration cannot be met,
    EngineFailure if vLLM does not start or fails its parity check.
    """

    name = "vllm"

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str,
        max_streams: int,
        max_positions: int = _MAX_POSITIONS,
        dtype: str = "auto",
        cuda_graphs: bool = True,
        full_cuda_graphs: bool = False,
        gpu_memory_utilization: float | None = None,
        prefill_chunk_positions: int | None = None,
        kv_blocks: int | None = None,
        voice_slots: int = _VOICE_SLOTS,
        work_dir: Path | None = None,
        on_health: Callable[[bool], None] = lambda _: None,
        observer: Observer = NULL_OBSERVER,
        on_device: DeviceThread = PLAIN_THREAD,
        alone: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        parity_check: bool | None = None,
        words: int = 0,
        lent: LentNet | None = None,
        loras: Sequence[Path] = (),
    ) -> None:
        """`words`: bytes that are left for reading words, by the net that is lent to `lent`; `loras`: folders of
        adapters."""
        kind = _check_device(device)
        check_weights(checkpoint, loras)
        self._family = family = vllm_family(checkpoint.spec.t3, max(voice_slots, max_streams))
        self._s3gen_bytes, self._words_bytes = s3gen_bytes(checkpoint.spec.flow), words
        # vLLM counts the last token drawn as a position of the sequence, though it is never read
        self._max_positions = min(max_positions, family.spec.positions - 1)
        dtype = _dtype(dtype, kind)
        family.check_dtype(dtype)
        settings = VllmSettings(
            max_streams=max_streams,
            max_positions=self._max_positions,
            prefill_chunk_positions=prefill_chunk_positions or _PREFILL_CHUNK_ROWS[kind] // family.lanes,
            dtype=dtype,
            cuda_graphs=cuda_graphs and kind == "cuda",
            full_cuda_graphs=full_cuda_graphs,
            gpu_memory_utilization=gpu_memory_utilization or self._share(kind, max_streams, dtype),
            kv_blocks=kv_blocks or (None if kind == "cuda" else self._full_blocks(max_streams)),
        )
        model_dir = prepare_model_dir(checkpoint, family, work_dir or default_cache_dir() / "vllm", loras)
        self._closing = threading.Event()

        checked = kind == "cuda" if parity_check is None else parity_check
        check = _parity_check(checkpoint, device, loras) if checked else None
        self.parity: list[Comparison] = []

        def build() -> VllmEngine:
            with alone():
                engine = VllmEngine(model_dir, family, settings)
                try:
                    if check is not None:
                        self.parity = check.raise_if_wrong(engine, dtype, max_streams, self.name)
                    if lent is not None:
                        engine.lend(lent)
                except BaseException:
                    engine.close()
                    raise
                return engine

        self._decoder = VllmDecoder(
            build,
            wait=self._closing.wait,
            on_health=on_health,
            on_failure=on_device.failed,
            rules=family.rules.end,
        )
        self._steps = StepLoop(self._decoder, observer, on_device)
        self._wait_until_ready()

    @property
    def decoder(self) -> VllmDecoder:
        """The decoder, for tools that measure its steps."""
        return self._decoder

    @property
    def healthy(self) -> bool:
        """Whether the engine runs: False from its failure until it is rebuilt. From any thread."""
        return self._decoder.healthy

    def start(self, request: T3Request) -> Generation:
        """As T3Backend.start. Raises InvalidInput as `VllmFamily.check_prompt`, and EngineFailure after `close`.

        While the engine is being rebuilt a new request fails at once.
        """
        max_prompt = self._max_positions - request.sampling.max_speech_tokens
        self._family.check_prompt(request.voice, request.text_tokens, max_prompt)
        if not self.healthy and not self._closing.is_set():
            generation = Generation(self._steps)
            generation.post(rejected(request))
            return generation
        return Generation.start(self._steps, request)

    async def close(self) -> None:
        """As T3Backend.close. Idempotent."""
        await CLOSING.run(self._close)

    def _close(self) -> None:
        self._closing.set()
        self._steps.close()
        self._decoder.close()

    def _wait_until_ready(self) -> None:
        try:
            self._decoder.ready.result()
        except Exception as error:
            self._close()
            raise EngineFailure(f"vLLM did not start: {type(error).__name__}: {error}") from error

    def _share(self, kind: str, max_streams: int, dtype: str) -> float:
        """vLLM's fraction of the GPU's memory."""
        if kind == "cpu":
            return 0.9  # unused
        plan = memory_plan(
            self._family,
            max_streams=max_streams,
            max_positions=self._max_positions,
            bytes_per_value=_BYTES[dtype],
            s3gen=self._s3gen_bytes,
            words=self._words_bytes,
        )
        gpu_bytes = torch.cuda.get_device_properties(0).total_memory
        check_fits(plan, max_streams, gpu_bytes)
        return plan.utilization(gpu_bytes)

    def _full_blocks(self, max_streams: int) -> int:
        """Blocks for every stream at its longest, and one that vLLM keeps for itself."""
        return max_streams * -(-(self._max_positions + 1) // BLOCK_POSITIONS) + 1


def installed() -> bool:
    """Whether the version of vLLM that this backend is written for is installed. Imports nothing."""
    try:
        return importlib.metadata.version("vllm").split("+")[0] == VERSION
    except importlib.metadata.PackageNotFoundError:
        return False


def _parity_check(checkpoint: Checkpoint, device: str, loras: Sequence[Path]) -> T3ParityCheck:
    """The check of the engines, from T3's net in float32, which is dropped here.

    Its memory stays in torch's cache, as that of a net whose heads were searched does. vLLM 0.9.2's worker empties the
    cache itself before it looks at the GPU's free memory (`init_device`), on the thread that builds the engine, while
    nothing else computes or captures.
    """
    return T3ParityCheck(load_net(checkpoint, device, loras=loras))


def _check_device(device: str) -> str:
    """Returns "cpu" or "cuda". Raises InvalidInput if vLLM is not installed or was not built for this device."""
    if not installed():
        message = f"t3 is vllm, but vLLM {VERSION} is not installed; install the extra gpu, or choose t3=torch."
        raise InvalidInput("t3", message, "VLLM_NOT_INSTALLED", value="vllm", allowed="torch")
    target = torch.device(device)
    if target.index not in (None, 0):
        message = f"device is {device}; vLLM runs on the first GPU of the process: choose it with CUDA_VISIBLE_DEVICES."
        raise InvalidInput("device", message, "DEVICE_UNSUPPORTED", value=device, allowed="cuda")
    built_for = "cpu" if "+cpu" in importlib.metadata.version("vllm") else "cuda"
    if built_for != ("cpu" if target.type == "cpu" else "cuda"):
        message = f"device is {device}; the installed vLLM is built for {built_for} only."
        raise InvalidInput("device", message, "DEVICE_UNSUPPORTED", value=device, allowed=built_for)
    return target.type


def _dtype(dtype: str, kind: str) -> str:
    if dtype not in DTYPES:
        allowed = ", ".join(DTYPES)
        message = f"t3_dtype is {dtype!r}; it must be one of {allowed}."
        raise InvalidInput("t3_dtype", message, "DTYPE_UNKNOWN", value=dtype, allowed=allowed)
    if dtype == "float32" and kind == "cuda":
        message = "t3_dtype is float32, for which vLLM has no fast attention on a GPU; it must be float16 or bfloat16."
        raise InvalidInput("t3_dtype", message, "T3_DTYPE_UNSUPPORTED", value=dtype, allowed="float16, bfloat16")
    return ("float16" if kind == "cuda" else "float32") if dtype == "auto" else dtype
