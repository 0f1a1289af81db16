"""The config.json by which vLLM makes standard's and Multilingual's T3, and the ids that are read from it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engines.model_spec import LlamaSpec
from engines.t3.llama.net import NORM_EPS, ROPE_FACTOR, ROPE_HIGH, ROPE_LOW, ROPE_ORIGINAL, ROPE_THETA
from engines.t3.vllm.llama.vocab import LaneIds

LANES = 2  # of every token: with its text, and without
LORAS = "mynah_loras"
_SPEC, _VOICE_SLOTS = "mynah_t3", "mynah_voice_slots"


def lane_config(ids: LaneIds, architecture: str, loras: Sequence[Path]) -> dict[str, object]:
    """The content of config.json. `vocab_size` counts what can be drawn; more ids are read (vocab.py).

    Heads and width are those of both lanes: vLLM plans its cache and its attention by them.
    """
    spec = ids.spec
    return {
        "architectures": [architecture],
        "model_type": "llama",
        "vocab_size": spec.speech_vocab,
        "hidden_size": LANES * spec.width,
        "num_attention_heads": LANES * spec.heads,
        "num_key_value_heads": LANES * spec.heads,
        "head_dim": spec.width // spec.heads,
        "intermediate_size": spec.feed_forward,
        "num_hidden_layers": spec.layers,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_THETA,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": ROPE_FACTOR,
            "low_freq_factor": ROPE_LOW,
            "high_freq_factor": ROPE_HIGH,
            "original_max_position_embeddings": ROPE_ORIGINAL,
        },
        "max_position_embeddings": 131_072,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",  # of the file; without it vLLM asks the hub
        "bos_token_id": None,
        "eos_token_id": None,
        _SPEC: asdict(spec),
        _VOICE_SLOTS: ids.voice_slots,
        LORAS: [str(folder) for folder in loras],
    }


def ids_of(config: Any) -> LaneIds:
    """The ids of a model with this configuration, as vLLM has read it."""
    return LaneIds(LlamaSpec(**getattr(config, _SPEC)), getattr(config, _VOICE_SLOTS))
