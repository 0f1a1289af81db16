"""What vLLM runs when it loads its plugins (entry point `vllm.general_plugins`): it learns of T3 and its tokenizer.

vLLM calls it in each of its processes, possibly more than once.
"""

from __future__ import annotations

ARCHITECTURE = "MynahT3"


def register() -> None:
    """Idempotent. Imports vLLM and torch; initialises no device."""
    from vllm import ModelRegistry
    from vllm.transformers_utils.tokenizer_base import TokenizerRegistry

    from engines.t3.vllm import tokenizer
    from engines.t3.vllm.model import T3ForVllm

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        # the class and not its name: a name would make vLLM look at it in a process of its own, seconds at each start
        ModelRegistry.register_model(ARCHITECTURE, T3ForVllm)
    made = tokenizer.AnyIdTokenizer
    TokenizerRegistry.register(tokenizer.NAME, made.__module__, made.__name__)
