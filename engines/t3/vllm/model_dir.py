"""The model directory that vLLM loads T3 from: a config.json of ours and a link to upstream's weights."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from engines.checkpoints.checkpoint import Checkpoint
from engines.model_spec import SPEECH_VOCAB, T3Spec
from engines.t3.vllm.heads import kernel_head_size
from engines.t3.vllm.plugin import ARCHITECTURE
from engines.t3.vllm.vocab import IdSpace


def prepare_model_dir(checkpoint: Checkpoint, space: IdSpace, work_dir: Path) -> Path:
    """The model directory of this checkpoint below `work_dir`, made or updated. Safe in several processes at once.

    It is the same each time because vLLM caches its compiled code by the model's path.
    """
    weights = checkpoint.t3_path.resolve()
    config = json.dumps(model_config(checkpoint.spec.t3, space), indent=1, sort_keys=True)
    key = hashlib.sha256(f"{weights}\n{config}".encode()).hexdigest()[:16]
    folder = work_dir / f"t3-{checkpoint.spec.name}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{os.getpid()}.partial"
    partial.write_text(config)
    partial.replace(folder / "config.json")
    partial.symlink_to(weights)
    partial.replace(folder / "model.safetensors")
    return folder


def model_config(spec: T3Spec, space: IdSpace) -> dict[str, object]:
    """The content of config.json. `vocab_size` counts the ids that can be drawn; our model reads more (vocab.py)."""
    return {
        "architectures": [ARCHITECTURE],
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
        "mynah_text_vocab": space.text_vocab,
        "mynah_voice_slots": space.voice_slots,
    }
