"""What vLLM has to know of a family's T3: its ids, its config.json, its limits and its bytes.

Engine, decoder, backend, sampler and memory plan take a VllmFamily and know nothing of one themselves.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from engines.errors import unsupported
from engines.model_spec import MAX_T3_PROMPT_TOKENS, SPEAKER_EMBEDDING_DIM, SPEECH_VOCAB, LlamaSpec, T3Spec
from engines.t3.backend import T3Request
from engines.t3.family import Family, family_of
from engines.t3.llama.prompt import check_llama_prompt
from engines.t3.llama.weights import block_tensors, conditioning_tensors
from engines.t3.prompt import check_prompt
from engines.t3.vllm.heads import kernel_head_size
from engines.t3.vllm.llama.config import LANES, lane_config
from engines.t3.vllm.llama.vocab import LaneIds
from engines.t3.vllm.plugin import GPT2_ARCHITECTURE, LLAMA_ARCHITECTURE
from engines.t3.vllm.vocab import IdSpace
from engines.voice import Voice

_MAX_SPEECH_TOKENS = 1000


@dataclass(frozen=True)
class VllmFamily(ABC):
    """A T3 of these dimensions on vLLM, with room for `voice_slots` voices."""

    spec: T3Spec
    voice_slots: int

    lanes: ClassVar[int]  # rows of a matrix product for each position
    # Positions of a long sequence, which the KV cache has room for times the streams. Longer ones take blocks that
    # shorter ones leave; without free blocks vLLM preempts a sequence and recomputes it.
    provisioned_positions: ClassVar[int]

    @property
    def rules(self) -> Family:
        """How a token is drawn, and where speech ends."""
        return family_of(self.spec)

    @property
    @abstractmethod
    def ids(self) -> IdSpace | LaneIds:
        """The meaning of ids."""

    @abstractmethod
    def config(self, loras: Sequence[Path] = ()) -> dict[str, object]:
        """The content of config.json; `loras` are merged as weights are loaded."""

    @abstractmethod
    def prompt(self, slot: int, request: T3Request) -> list[int]:
        """The ids of a request's prompt whose voice is in this slot."""

    @abstractmethod
    def check_prompt(self, voice: Voice, text_tokens: Sequence[int], max_positions: int) -> None:
        """Raises InvalidInput as t3.prompt.check_prompt."""

    @abstractmethod
    def check_dtype(self, dtype: str) -> None:
        """Raises InvalidInput if this family's logits are not good enough in a precision."""

    @abstractmethod
    def weight_bytes(self, bytes_per_value: int) -> int:
        """Bytes of the model's tensors in a precision of `bytes_per_value`."""

    def kv_bytes_per_position(self, bytes_per_value: int) -> int:
        """Bytes of the keys and values of all layers and lanes."""
        spec = self.spec
        head = kernel_head_size(spec.width // spec.heads)
        return 2 * spec.layers * self.lanes * spec.heads * head * bytes_per_value


class Gpt2OnVllm(VllmFamily):
    """Turbo's and Nano's."""

    lanes = 1
    # A full voice prefix, 1000 speech tokens, the start mark and 150 text tokens: more than segments of 250 characters
    # need.
    provisioned_positions = 1536
    assert provisioned_positions >= 1 + MAX_T3_PROMPT_TOKENS + 150 + 1 + _MAX_SPEECH_TOKENS

    @cached_property
    def ids(self) -> IdSpace:
        return IdSpace(self.spec.text_vocab, self.voice_slots)

    def config(self, loras: Sequence[Path] = ()) -> dict[str, object]:
        """As VllmFamily.config. `vocab_size` counts what can be drawn; our model reads more ids (vocab.py)."""
        assert not loras, "this family has no adapters"
        spec = self.spec
        return {
            "architectures": [GPT2_ARCHITECTURE],
            "model_type": "gpt2",
            "vocab_size": SPEECH_VOCAB,
            "n_positions": spec.positions,
            "n_embd": spec.width,
            "n_layer": spec.layers,
            "n_head": spec.heads,
            "head_dim": kernel_head_size(spec.width // spec.heads),  # of the KV cache
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",  # of the file; without it vLLM asks the hub
            "bos_token_id": None,
            "eos_token_id": None,
            "mynah_text_vocab": self.ids.text_vocab,
            "mynah_voice_slots": self.ids.voice_slots,
        }

    def prompt(self, slot: int, request: T3Request) -> list[int]:
        """As VllmFamily.prompt."""
        return self.ids.prompt(slot, request.voice.t3_prompt_tokens.tolist(), request.text_tokens)

    def check_prompt(self, voice: Voice, text_tokens: Sequence[int], max_positions: int) -> None:
        """As VllmFamily.check_prompt."""
        check_prompt(voice, text_tokens, self.spec, max_positions)

    def check_dtype(self, dtype: str) -> None:
        """As VllmFamily.check_dtype: every precision is."""

    def weight_bytes(self, bytes_per_value: int) -> int:
        """As VllmFamily.weight_bytes; the speaker projection is always float32."""
        spec = self.spec
        rows = self.ids.rows + spec.positions + SPEECH_VOCAB  # embeddings, positions, head
        values = transformer_values(spec) + rows * spec.width + SPEECH_VOCAB
        return values * bytes_per_value + (SPEAKER_EMBEDDING_DIM + 1) * spec.width * 4


@dataclass(frozen=True)
class LlamaOnVllm(VllmFamily):
    """Standard's and Multilingual's. Every position has two lanes, also for a request without guidance."""

    spec: LlamaSpec

    lanes = LANES
    # The conditioning, 200 text tokens and the four marks around them, and 1000 speech tokens.
    provisioned_positions = 1248
    assert provisioned_positions >= 34 + 200 + 4 + _MAX_SPEECH_TOKENS

    @cached_property
    def ids(self) -> LaneIds:
        return LaneIds(self.spec, self.voice_slots)

    def config(self, loras: Sequence[Path] = ()) -> dict[str, object]:
        """As VllmFamily.config."""
        return lane_config(self.ids, LLAMA_ARCHITECTURE, loras)

    def prompt(self, slot: int, request: T3Request) -> list[int]:
        """As VllmFamily.prompt. The exaggeration is rounded to a thousandth."""
        return self.ids.prompt(slot, request.sampling.exaggeration, request.text_tokens)

    def check_prompt(self, voice: Voice, text_tokens: Sequence[int], max_positions: int) -> None:
        """As VllmFamily.check_prompt."""
        check_llama_prompt(voice, text_tokens, self.spec, max_positions)

    def check_dtype(self, dtype: str) -> None:
        """As VllmFamily.check_dtype. Guidance multiplies rounding: bfloat16 moves a logit by 0.14, float16 by 0.012."""
        if dtype == "bfloat16":
            raise unsupported("t3_dtype", dtype, "T3 with guidance on vLLM", "auto or float16")

    def weight_bytes(self, bytes_per_value: int) -> int:
        """As VllmFamily.weight_bytes; what computes a voice's rows is always float32."""
        spec, ids = self.spec, self.ids
        values = transformer_values(spec) + (ids.rows + ids.places + spec.speech_vocab) * spec.width
        conditioning = sum(math.prod(shape) for shape in conditioning_tensors(spec).values())
        return values * bytes_per_value + conditioning * 4


def vllm_family(spec: T3Spec, voice_slots: int) -> VllmFamily:
    """The family of a T3 of these dimensions."""
    return LlamaOnVllm(spec, voice_slots) if isinstance(spec, LlamaSpec) else Gpt2OnVllm(spec, voice_slots)


def transformer_values(spec: T3Spec) -> int:
    """Numbers in all blocks and the final norm."""
    width = spec.width
    if isinstance(spec, LlamaSpec):
        return spec.layers * sum(math.prod(shape) for shape in block_tensors(spec).values()) + width
    per_layer = 12 * width * width + 13 * width  # four matrices and their biases, two norms
    return spec.layers * per_layer + 2 * width
