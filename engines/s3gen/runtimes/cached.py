"""The common part of runtimes with cached decoding: prompts by voice, a stream's cache, and their memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar
from weakref import WeakSet

from engines.model_spec import MAX_S3GEN_PROMPT_TOKENS, FlowSpec
from engines.s3gen.cache.kv import token_bytes
from engines.s3gen.cache.prompt_cache import PromptCache, Sized
from engines.s3gen.runtime import F32, FlowBatch, FlowCache, Runtime, VocoderBatch, VocoderResult
from engines.voice import Voice

DEFAULT_CONTEXT_TOKENS = 50
_PROMPT_BYTES = 1 << 30  # four voices with the longest prompt in float32
# All streams of a voice share its prompt, so the prompt's noise cannot depend on a request's seed.
PROMPT_SEED = 0


def default_prompt_bytes(spec: FlowSpec) -> int:
    """Bytes of prompts that are kept for voices without a stream: at least one of the longest, which is ten times as
    large with ten guided steps."""
    return max(_PROMPT_BYTES, (MAX_S3GEN_PROMPT_TOKENS + 2) * token_bytes(spec))


class TokenBlock(Sized, Protocol):
    @property
    def tokens(self) -> int: ...


B = TypeVar("B", bound=TokenBlock)
B_contra = TypeVar("B_contra", bound=TokenBlock, contravariant=True)
S = TypeVar("S", bound=Sized)


class TokenCache(Sized, Protocol[B_contra]):
    """See KVCache and HostKVCache."""

    def append(self, block: B_contra, tokens: int, /) -> None: ...

    def clear(self) -> None: ...


class BlockCache(Generic[B, S]):
    """A FlowCache: the keys and values of the last finished tokens in `kv`, the convolutions' state behind them, and
    the decoded block that awaits its commit."""

    def __init__(self, kv: TokenCache[B], prompt_state: S) -> None:
        """`prompt_state`: the convolutions' state behind the prompt, shared by all streams of the voice."""
        self._kv, self._prompt_state = kv, prompt_state
        self.conv_state = prompt_state
        self._pending: tuple[int, B, S] | None = None

    @property
    def nbytes(self) -> int:
        own = self._kv.nbytes + (0 if self.conv_state is self._prompt_state else self.conv_state.nbytes)
        return own + (0 if self._pending is None else self._pending[1].nbytes + self._pending[2].nbytes)

    def hold(self, new_tokens: int, block: B, conv_state: S) -> None:
        """Keep a decoded block until `commit`; a block decoded again replaces it.

        block: starts with the new tokens, or with as many of the last of them as the cache can hold
        """
        self._pending = (new_tokens, block, conv_state)

    def commit(self, new_tokens: int) -> None:
        """As FlowCache.commit."""
        assert self._pending is not None, "nothing was decoded since the last commit"
        decoded, block, conv_state = self._pending
        assert decoded == new_tokens, f"{decoded} new tokens were decoded, not {new_tokens}"
        self._pending, self.conv_state = None, conv_state
        self._kv.append(block, min(new_tokens, block.tokens))

    def reset(self) -> None:
        """As FlowCache.reset."""
        self._kv.clear()
        self.conv_state, self._pending = self._prompt_state, None


P = TypeVar("P", bound=Sized)
C = TypeVar("C", bound=FlowCache)
R = TypeVar("R", bound=Runtime)


class CachedDecoding(ABC, Generic[P, C, R]):
    """A CachedRuntime without `flow_cached` and `cfm_s`, with prompts P and caches C.

    `reference` decodes without caches and has the vocoder, which needs none. At most `prompt_bytes` of prompts are kept
    for voices without a stream.
    """

    def __init__(self, name: str, reference: R, context_tokens: int, prompt_bytes: int) -> None:
        self.name = name
        self.reference = reference
        self.context_tokens = context_tokens
        self.prompts: PromptCache[P] = PromptCache(prompt_bytes)
        self._caches: WeakSet[C] = WeakSet()

    @abstractmethod
    def _prompt(self, voice: Voice) -> P:
        """Compute the state behind the voice's prompt."""

    @abstractmethod
    def _cache(self, prompt: P) -> C:
        """An empty cache behind the prompt."""

    @property
    def cache_bytes(self) -> int:
        return self.prompts.alive_bytes + sum(cache.nbytes for cache in list(self._caches))

    def flow(self, batch: FlowBatch) -> F32:
        return self.reference.flow(batch)

    def vocoder(self, batch: VocoderBatch) -> VocoderResult:
        return self.reference.vocoder(batch)

    def begin(self, voice: Voice) -> C:
        cache = self._cache(self.prompts.get(voice.key, lambda: self._prompt(voice)))
        self._caches.add(cache)
        return cache
