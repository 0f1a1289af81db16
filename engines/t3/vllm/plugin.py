"""The plugin that registers T3's models and tokenizer with vLLM (entry point `vllm.general_plugins`).

vLLM calls `register` in each of its processes, possibly more than once.
"""

from __future__ import annotations

from typing import Any, NoReturn

GPT2_ARCHITECTURE = "MynahT3"
LLAMA_ARCHITECTURE = "MynahLlamaT3"
TOKENIZER = "mynah-t3"


def register() -> None:
    """Idempotent. Imports vLLM and torch; initialises no device."""
    from vllm import ModelRegistry
    from vllm.transformers_utils.tokenizer_base import TokenizerRegistry

    from engines.t3.vllm.llama.model import LlamaT3ForVllm
    from engines.t3.vllm.model import T3ForVllm

    models = {GPT2_ARCHITECTURE: T3ForVllm, LLAMA_ARCHITECTURE: LlamaT3ForVllm}
    for name in models.keys() - ModelRegistry.get_supported_archs():
        # the class and not its name: a name would make vLLM look at it in a process of its own, seconds at each start
        ModelRegistry.register_model(name, models[name])
    TokenizerRegistry.register(TOKENIZER, AnyIdTokenizer.__module__, AnyIdTokenizer.__name__)


class AnyIdTokenizer:
    """The tokenizer that vLLM 0.9.2 requires (`tokenizer_mode="custom"`). It accepts every id and reads no text.

    Mynah tokenizes text itself (engines/text) and gives vLLM ids; see vocab.py.
    """

    is_fast = True
    bos_token_id = None
    eos_token_id = None
    pad_token_id = None
    sep_token = ""
    pad_token = ""
    chat_template = None
    truncation_side = "left"
    name_or_path = TOKENIZER
    vocab_size = 1
    max_token_id = 2**31 - 1  # ids travel as int32
    # vLLM keeps copies of these, so they are made once and never changed
    all_special_ids: tuple[int, ...] = ()
    all_special_tokens: tuple[str, ...] = ()
    all_special_tokens_extended: tuple[str, ...] = ()

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> AnyIdTokenizer:
        return cls()

    def __len__(self) -> int:
        return self.vocab_size

    def get_vocab(self) -> dict[str, int]:
        return {}

    def get_added_vocab(self) -> dict[str, int]:
        return {}

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("T3 under vLLM takes token ids, not text")

    encode = encode_one = decode = convert_ids_to_tokens = convert_tokens_to_string = apply_chat_template = __call__
