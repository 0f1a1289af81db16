"""Cached decoding on ONNX Runtime: the block graphs, on the CPU, with their caches on the host.

One row a call: on a CPU a batch saves nothing, and laying the caches of different streams side by side would copy them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort

from engines.checkpoints.checkpoint import Checkpoint
from engines.errors import InvalidInput
from engines.model_spec import MEL_BANDS, MEL_FRAMES_PER_TOKEN, FlowSpec
from engines.onnx.session import BoundSession, SessionSettings
from engines.s3gen.cache.conv import HostConvState
from engines.s3gen.cache.kv import F32, HostKVBlock, HostKVCache
from engines.s3gen.export.block_graphs import CFM_BLOCK, ENCODER_BLOCK, own_name, part_name, positions_name
from engines.s3gen.export.export import ExportSettings, export
from engines.s3gen.nets.cfm import euler_times
from engines.s3gen.nets.encoder import PositionCache, Positions
from engines.s3gen.nets.flow import load_flow
from engines.s3gen.noise import prompt_noise
from engines.s3gen.runtime import I64, CachedFlowBatch, Runtime
from engines.s3gen.runtimes.cached import (
    DEFAULT_CONTEXT_TOKENS,
    PROMPT_SEED,
    BlockCache,
    CachedDecoding,
    default_prompt_bytes,
)
from engines.s3gen.runtimes.onnx import bound
from engines.s3gen.stopwatch import Stopwatch
from engines.voice import Voice

Inputs = dict[str, ort.OrtValue]
_GRAPHS = (ENCODER_BLOCK, CFM_BLOCK)


class KVInputs:
    """A block of keys and values as inputs of the graphs. `name`: prompt or context. Never changed."""

    def __init__(self, name: str, block: HostKVBlock) -> None:
        self.block = block
        self._name = name

    @cached_property
    def encoder(self) -> Inputs:
        lower = _bind(self.block.lower, self._port)
        return lower | _bind(self.block.upper, self._port, first=len(self.block.lower))

    @cached_property
    def steps(self) -> list[Inputs]:
        return [_bind(step, self._port) for step in self.block.steps]

    def _port(self, kind: str, layer: int) -> str:
        return part_name(f"{self._name}_{kind}", layer)


def _bind(layers: F32, name: Callable[[str, int], str], first: int = 0) -> Inputs:
    """Views of (layers, 2, rows, heads, n, head width) under their ports' names; the first layer's number is
    `first`."""
    return {
        name(kind, first + index): ort.OrtValue.ortvalue_from_numpy(array)
        for index, layer in enumerate(layers)
        for kind, array in zip(("keys", "values"), layer, strict=True)
    }


@dataclass(frozen=True, eq=False)
class Prompt:
    """The state behind a voice's prompt, shared by its streams; never changed."""

    kv: KVInputs
    conv_state: HostConvState
    x_vector: F32  # (192,)

    @property
    def nbytes(self) -> int:
        return self.kv.block.nbytes + self.conv_state.nbytes + self.x_vector.nbytes


@dataclass(frozen=True)
class _Block:
    """One row for the graphs, and the state before it. Shapes as CachedFlowBatch's without the axis of rows."""

    tokens: I64
    new_tokens: int
    prompt_mel: F32
    noise: F32
    x_vector: F32
    prompt: KVInputs
    context: KVInputs
    conv_state: HostConvState


@dataclass(frozen=True)
class _Done:
    """A block's mel (2M, 80), its keys and values (of all M tokens), and the convolutions' state behind its new
    tokens."""

    mel: F32
    kv: HostKVBlock
    conv_state: HostConvState


class OnnxFlowCache(BlockCache[HostKVBlock, HostConvState]):
    """A FlowCache behind a voice's prompt."""

    def __init__(self, prompt: Prompt, spec: FlowSpec, context_tokens: int) -> None:
        self.prompt = prompt
        self.kv = HostKVCache(spec, context_tokens)
        super().__init__(self.kv, prompt.conv_state)

    @property
    def context(self) -> KVInputs:
        """The cached tokens that the next block sees besides the prompt."""
        return KVInputs("context", self.kv.block)


class OnnxCachedRuntime(CachedDecoding[Prompt, OnnxFlowCache, Runtime]):
    """A CachedRuntime; its vocoder is the reference's, because ONNX Runtime's is no faster.

    Raises as OnnxRuntime, and InvalidInput if another provider than the CPU is named: the caches lie on the host.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        reference: Runtime,
        *,
        threads: int,
        providers: tuple[str, ...] = ("cpu",),
        cache_dir: Path | None = None,
        context_tokens: int = DEFAULT_CONTEXT_TOKENS,
        prompt_bytes: int | None = None,
    ) -> None:
        settings = SessionSettings(providers, threads)
        if providers != ("cpu",):
            named = ", ".join(providers)
            message = f"providers is {named}; cached decoding on ONNX Runtime needs cpu alone. On a GPU use torch."
            raise InvalidInput("providers", message, "PROVIDER_UNSUPPORTED", value=named, allowed="cpu")
        self._spec = checkpoint.spec.flow
        kept = default_prompt_bytes(self._spec) if prompt_bytes is None else prompt_bytes
        super().__init__("onnx-cached", reference, context_tokens, kept)
        made = export(checkpoint, ExportSettings(_GRAPHS, False, "fp32", threads), cache_dir=cache_dir)
        self._encoder, self._step = (bound(made, name, settings) for name in _GRAPHS)
        # only the projections of positions are read of torch's encoder; its other weights stay on disk
        self._positions = _PositionInputs(PositionCache(load_flow(checkpoint.s3gen_path, checkpoint.spec).encoder))
        self._cfm = Stopwatch()

    @property
    def cfm_s(self) -> float:
        """As Runtime.cfm_s."""
        return self._cfm.total_s

    def _cache(self, prompt: Prompt) -> OnnxFlowCache:
        return OnnxFlowCache(prompt, self._spec, self.context_tokens)

    def _prompt(self, voice: Voice) -> Prompt:
        """The prompt is the first block: all its tokens are new, and its mel is given."""
        nothing = HostKVBlock.empty(self._spec, 0)
        done = self._advance(
            _Block(
                tokens=voice.s3gen_prompt_tokens,
                new_tokens=len(voice.s3gen_prompt_tokens),
                prompt_mel=voice.s3gen_prompt_mel,
                noise=prompt_noise(PROMPT_SEED, len(voice.s3gen_prompt_mel)),
                x_vector=voice.x_vector,
                prompt=KVInputs("prompt", nothing),
                context=KVInputs("context", nothing),
                conv_state=HostConvState.zeros(self._spec),
            )
        )
        return Prompt(KVInputs("prompt", done.kv), done.conv_state, voice.x_vector)

    def flow_cached(self, batch: CachedFlowBatch) -> F32:
        """As CachedRuntime.flow_cached."""
        caches = [cache for cache in batch.caches if isinstance(cache, OnnxFlowCache)]
        assert len(set(caches)) == len(batch.tokens), "every row has a cache of this runtime, for itself alone"
        mel = np.zeros(batch.noise.shape, np.float32)
        for row, (cache, tokens) in enumerate(zip(caches, batch.token_lengths.tolist(), strict=True)):
            frames, new_tokens = tokens * MEL_FRAMES_PER_TOKEN, int(batch.new_tokens[row])
            done = self._advance(
                _Block(
                    tokens=batch.tokens[row, :tokens],
                    new_tokens=new_tokens,
                    prompt_mel=np.zeros((frames, MEL_BANDS), np.float32),
                    noise=batch.noise[row, :frames],
                    x_vector=cache.prompt.x_vector,
                    prompt=cache.prompt.kv,
                    context=cache.context,
                    conv_state=cache.conv_state,
                )
            )
            mel[row, :frames] = done.mel
            cache.hold(new_tokens, done.kv, done.conv_state)
        return mel

    def _advance(self, block: _Block) -> _Done:
        """Compute the block. The state before it does not change."""
        kv = HostKVBlock.empty(self._spec, len(block.tokens))
        mu, speaker, token_tails, frame_tails = self._encode(block, kv)
        with self._cfm:
            mel, step_tails = self._solve(block, kv, mu, speaker)
        return _Done(mel, kv, HostConvState(token_tails, frame_tails, step_tails))

    def _solve(self, block: _Block, kv: HostKVBlock, mu: ort.OrtValue, speaker: ort.OrtValue) -> tuple[F32, F32]:
        """mel (2M, 80) and the convolutions' states behind each step; keys and values are written into `kv`."""
        put, frames = self._step.put, block.new_tokens * MEL_FRAMES_PER_TOKEN
        inputs = {"mu": mu, "speaker": speaker, "prompt_mel": put(block.prompt_mel[None])}
        inputs["new_frames"] = put(np.array([frames], np.int64))
        x, tails = put(block.noise[None]), []
        for step, times in enumerate(pairwise(euler_times(self._spec.guided_steps))):
            t, r = (put(np.full(1, time, np.float32)) for time in times)
            before = block.prompt.steps[step] | block.context.steps[step]
            state = {"x": x, "t": t, "r": r, "tails": put(block.conv_state.steps[step])}
            x, after, *_ = self._step(inputs | state | before, _bind(kv.steps[step], own_name))
            tails.append(after.numpy())
        return x.numpy()[0], np.stack(tails)

    def _encode(self, block: _Block, kv: HostKVBlock) -> tuple[ort.OrtValue, ort.OrtValue, F32, F32]:
        """mu and speaker as graph values, the convolutions' states as arrays; keys and values are written into `kv`."""
        put = self._encoder.put
        keys = block.prompt.block.tokens + block.context.block.tokens + len(block.tokens)
        inputs = {
            "tokens": put(block.tokens[None]),
            "new_tokens": put(np.array([block.new_tokens], np.int64)),
            "x_vector": put(block.x_vector[None]),
            "token_tails": put(block.conv_state.tokens[None]),
            "frame_tails": put(block.conv_state.frames[None]),
        }
        own = _bind(kv.lower, own_name) | _bind(kv.upper, own_name, first=len(kv.lower))
        before = block.prompt.encoder | block.context.encoder | self._positions.get(keys, self._encoder)
        mu, speaker, token_tails, frame_tails, *_ = self._encoder(inputs | before, own)
        return mu, speaker, token_tails.numpy()[0], frame_tails.numpy()[0]


class _PositionInputs:
    """The projected positions as inputs; made again only if a longer table is needed."""

    def __init__(self, cache: PositionCache) -> None:
        self._cache = cache
        self._tables: Positions = ()
        self._inputs: Inputs = {}

    def get(self, tokens: int, session: BoundSession) -> Inputs:
        tables = self._cache.covering(tokens)
        if tables is not self._tables:
            self._tables = tables
            self._inputs = {positions_name(i): session.put(table.numpy()) for i, table in enumerate(tables)}
        return self._inputs
