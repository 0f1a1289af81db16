"""The tokenizer vLLM insists on: it has no text to read, its only duty is to find every id acceptable.

Mynah tokenizes text itself (engines.text) and gives vLLM ids; see vocab.py.
"""

from __future__ import annotations

from typing import Any, NoReturn

NAME = "mynah-t3"


class AnyIdTokenizer:
    """What vLLM 0.9.2 asks of a tokenizer that is registered by name (`tokenizer_mode="custom"`)."""

    is_fast = True
    bos_token_id = None
    eos_token_id = None
    pad_token_id = None
    sep_token = ""
    pad_token = ""
    chat_template = None
    truncation_side = "left"
    name_or_path = NAME
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
