"""Cached decoding on ONNX Runtime: the block graphs, what they remember on the host, on the CPU.

Knows what is remembered for whom and how a block becomes calls; the numbers come from the graphs. One row a call:
on a CPU a batch saves nothing, and laying memories of different streams side by side would copy them.
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
from engines.errors import invalid_value
from engines.model_spec import MEL_BANDS, MEL_FRAMES_PER_TOKEN, FlowSpec
from engines.onnx.session import BoundSession, SessionSettings
from engines.s3gen.cache.host_memory import F32, HostContext, HostMemory, HostTails
from engines.s3gen.export.block_graphs import CFM_BLOCK, ENCODER_BLOCK, own_name, part_name, positions_name
from engines.s3gen.export.export import ExportSettings, export
from engines.s3gen.nets.cfm import EULER_TIMES
from engines.s3gen.nets.encoder import PositionCache, Positions
from engines.s3gen.nets.flow import load_flow
from engines.s3gen.noise import prompt_noise
from engines.s3gen.runtime import I64, CachedFlowBatch, Runtime
from engines.s3gen.runtimes.cached import DEFAULT_CONTEXT_TOKENS, DEFAULT_PROMPT_BYTES, PROMPT_SEED, CachedDecoding
from engines.s3gen.runtimes.onnx import bound
from engines.s3gen.stopwatch import Stopwatch
from engines.voice import Voice

Inputs = dict[str, ort.OrtValue]
_GRAPHS = (ENCODER_BLOCK, CFM_BLOCK)


class Part:
    """A piece of memory as the graphs' inputs, `name` being prompt or context. Never changed."""

    def __init__(self, name: str, memory: HostMemory) -> None:
        self.memory = memory
        self._name = name

    @cached_property
    def encoder(self) -> Inputs:
        lower = _bind(self.memory.lower, self._port)
        return lower | _bind(self.memory.upper, self._port, first=len(self.memory.lower))

    @cached_property
    def steps(self) -> list[Inputs]:
        return [_bind(step, self._port) for step in self.memory.steps]

    def _port(self, kind: str, layer: int) -> str:
        return part_name(f"{self._name}_{kind}", layer)


def _bind(layers: F32, name: Callable[[str, int], str], first: int = 0) -> Inputs:
    """Views of (layers, 2, heads, n, head width) under their ports' names; the first layer's number is `first`."""
    return {
        name(kind, first + index): ort.OrtValue.ortvalue_from_numpy(array[None])
        for index, layer in enumerate(layers)
        for kind, array in zip(("keys", "values"), layer, strict=True)
    }


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a voice's prompt leaves for every stream of the voice; never changed."""

    part: Part
    tails: HostTails
    x_vector: F32  # (192,)

    @property
    def nbytes(self) -> int:
        return self.part.memory.nbytes + self.tails.nbytes + self.x_vector.nbytes


@dataclass(frozen=True)
class _Block:
    """One row for the graphs, and what came before it. Shapes as CachedFlowBatch's without the axis of rows."""

    tokens: I64
    new_tokens: int
    prompt_mel: F32
    noise: F32
    x_vector: F32
    prompt: Part
    context: Part
    tails: HostTails


@dataclass(frozen=True)
class _Done:
    """A block's mel (2M, 80), its own keys and values (of all M tokens), and the tails behind its new ones."""

    mel: F32
    memory: HostMemory
    tails: HostTails


class OnnxFlowCache:
    """Fulfils `FlowCache`: a voice's prompt, the last finished tokens, and what waits to be committed."""

    def __init__(self, prompt: Prompt, spec: FlowSpec, context_tokens: int) -> None:
        self.prompt = prompt
        self.tails = prompt.tails
        self._spec, self._most_tokens = spec, context_tokens
        self._context = HostContext(spec, context_tokens)
        self._waiting: tuple[int, _Done] | None = None

    @property
    def context(self) -> Part:
        """What the next block sees besides the prompt."""
        return Part("context", self._context.memory)

    @property
    def nbytes(self) -> int:
        own = self._context.nbytes + (0 if self.tails is self.prompt.tails else self.tails.nbytes)
        return own + (0 if self._waiting is None else self._waiting[1].memory.nbytes + self._waiting[1].tails.nbytes)

    def hold(self, new_tokens: int, done: _Done) -> None:
        """Keep what `commit` will need; a block decoded again replaces it."""
        self._waiting = (new_tokens, done)

    def commit(self, new_tokens: int) -> None:
        assert self._waiting is not None, "nothing was decoded since the last commit"
        decoded, done = self._waiting
        assert decoded == new_tokens, f"{decoded} new tokens were decoded, not {new_tokens}"
        self._waiting, self.tails = None, done.tails
        self._context.append(done.memory, new_tokens)

    def reset(self) -> None:
        self._context = HostContext(self._spec, self._most_tokens)
        self.tails, self._waiting = self.prompt.tails, None


class OnnxCachedRuntime(CachedDecoding[Prompt, OnnxFlowCache, Runtime]):
    """Fulfils `CachedRuntime`; the vocoder is the reference's, as ONNX Runtime makes it no faster.

    Raises as OnnxRuntime; InvalidInput when another provider than the CPU's is named, as the caches lie on the host.
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
        prompt_bytes: int = DEFAULT_PROMPT_BYTES,
    ) -> None:
        settings = SessionSettings(providers, threads)
        if providers != ("cpu",):
            allowed = "cpu; on a GPU cached decoding runs on torch"
            raise invalid_value("providers", ",".join(providers), allowed, "PROVIDER_UNSUPPORTED")
        super().__init__("onnx-cached", reference, context_tokens, prompt_bytes)
        self._spec = checkpoint.spec.flow
        made = export(checkpoint, ExportSettings(_GRAPHS, False, "fp32", threads), cache_dir=cache_dir)
        self._encoder, self._step = (bound(made, name, settings) for name in _GRAPHS)
        # of torch's encoder nothing but the projections of positions is ever read
        self._positions = _PositionInputs(PositionCache(load_flow(checkpoint.s3gen_path, checkpoint.spec).encoder))
        self._cfm = Stopwatch()

    @property
    def cfm_s(self) -> float:
        """As Runtime.cfm_s."""
        return self._cfm.total_s

    def _cache(self, prompt: Prompt) -> OnnxFlowCache:
        return OnnxFlowCache(prompt, self._spec, self.context_tokens)

    def _prompt(self, voice: Voice) -> Prompt:
        """The prompt is a block like any other: the first, all of it new, and with mel to hold on to."""
        nothing = HostMemory.empty(self._spec, 0)
        done = self._advance(
            _Block(
                tokens=voice.s3gen_prompt_tokens,
                new_tokens=len(voice.s3gen_prompt_tokens),
                prompt_mel=voice.s3gen_prompt_mel,
                noise=prompt_noise(PROMPT_SEED, len(voice.s3gen_prompt_mel)),
                x_vector=voice.x_vector,
                prompt=Part("prompt", nothing),
                context=Part("context", nothing),
                tails=HostTails.zeros(self._spec),
            )
        )
        return Prompt(Part("prompt", done.memory), done.tails, voice.x_vector)

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
                    prompt=cache.prompt.part,
                    context=cache.context,
                    tails=cache.tails,
                )
            )
            mel[row, :frames] = done.mel
            cache.hold(new_tokens, done)
        return mel

    def _advance(self, block: _Block) -> _Done:
        """Compute the block; changes nothing of what is remembered."""
        memory = HostMemory.empty(self._spec, len(block.tokens))
        mu, speaker, token_tails, frame_tails = self._encode(block, memory)
        with self._cfm:
            mel, step_tails = self._solve(block, memory, mu, speaker)
        return _Done(mel, memory, HostTails(token_tails, frame_tails, step_tails))

    def _solve(self, block: _Block, memory: HostMemory, mu: ort.OrtValue, speaker: ort.OrtValue) -> tuple[F32, F32]:
        """mel (2M, 80) and the tails behind each step; keys and values are written into `memory`."""
        put, frames = self._step.put, block.new_tokens * MEL_FRAMES_PER_TOKEN
        inputs = {"mu": mu, "speaker": speaker, "prompt_mel": put(block.prompt_mel[None])}
        inputs["new_frames"] = put(np.array([frames], np.int64))
        x, tails = put(block.noise[None]), []
        for step, times in enumerate(pairwise(EULER_TIMES)):
            t, r = (put(np.full(1, time, np.float32)) for time in times)
            before = block.prompt.steps[step] | block.context.steps[step]
            state = {"x": x, "t": t, "r": r, "tails": put(block.tails.steps[step][None])}
            x, left, *_ = self._step(inputs | state | before, _bind(memory.steps[step], own_name))
            tails.append(left.numpy()[0])
        return x.numpy()[0], np.stack(tails)

    def _encode(self, block: _Block, memory: HostMemory) -> tuple[ort.OrtValue, ort.OrtValue, F32, F32]:
        """mu and speaker as they are, the new tails on the host; keys and values are written into `memory`."""
        put = self._encoder.put
        keys = block.prompt.memory.tokens + block.context.memory.tokens + len(block.tokens)
        inputs = {
            "tokens": put(block.tokens[None]),
            "new_tokens": put(np.array([block.new_tokens], np.int64)),
            "x_vector": put(block.x_vector[None]),
            "token_tails": put(block.tails.tokens[None]),
            "frame_tails": put(block.tails.frames[None]),
        }
        own = _bind(memory.lower, own_name) | _bind(memory.upper, own_name, first=len(memory.lower))
        before = block.prompt.encoder | block.context.encoder | self._positions.get(keys, self._encoder)
        mu, speaker, token_tails, frame_tails, *_ = self._encoder(inputs | before, own)
        return mu, speaker, token_tails.numpy()[0], frame_tails.numpy()[0]


class _PositionInputs:
    """The projected positions as inputs, made anew only when a longer table is needed."""

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
