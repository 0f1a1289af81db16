"""What every cached runtime is besides its nets: prompts shared by a voice's streams, and the caches that are alive.

Knows who remembers how much; knows no tensor and no graph.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar
from weakref import WeakSet

from engines.s3gen.cache.prompt_cache import PromptCache, Sized
from engines.s3gen.runtime import F32, FlowBatch, FlowCache, Runtime, VocoderBatch, VocoderResult
from engines.voice import Voice

DEFAULT_CONTEXT_TOKENS = 50
DEFAULT_PROMPT_BYTES = 1 << 30  # four voices with the longest prompt in float32
# All streams of a voice share its prompt, so the prompt's noise cannot depend on a request's seed.
PROMPT_SEED = 0


P = TypeVar("P", bound=Sized)
C = TypeVar("C", bound=FlowCache)
R = TypeVar("R", bound=Runtime)


class CachedDecoding(ABC, Generic[P, C, R]):
    """`CachedRuntime` but for `flow_cached` and `cfm_s`, with prompts P and caches C; `reference` decodes without
    caches and has the vocoder, which nothing is cached of. At most `prompt_bytes` of prompts are kept for voices that
    nobody is using.
    """

    def __init__(self, name: str, reference: R, context_tokens: int, prompt_bytes: int) -> None:
        self.name = name
        self.reference = reference
        self.context_tokens = context_tokens
        self.prompts: PromptCache[P] = PromptCache(prompt_bytes)
        self._caches: WeakSet[C] = WeakSet()

    @abstractmethod
    def _prompt(self, voice: Voice) -> P:
        """Compute what the voice's prompt leaves."""

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
