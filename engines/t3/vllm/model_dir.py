"""The model directory that vLLM loads T3 from: a config.json of ours and a link to upstream's weights."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from engines.checkpoints.checkpoint import Checkpoint
from engines.t3.vllm.family import VllmFamily


def prepare_model_dir(checkpoint: Checkpoint, family: VllmFamily, work_dir: Path, loras: Sequence[Path] = ()) -> Path:
    """The model directory of this checkpoint below `work_dir`, made or updated. Safe in several processes at once.

    loras: folders of adapters that are merged as weights are loaded

    It is the same each time because vLLM caches its compiled code by the model's path.
    """
    weights = checkpoint.t3_path.resolve()
    config = json.dumps(family.config(loras), indent=1, sort_keys=True)
    key = hashlib.sha256(f"{weights}\n{config}".encode()).hexdigest()[:16]
    folder = work_dir / f"t3-{checkpoint.spec.name}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{os.getpid()}.partial"
    partial.write_text(config)
    partial.replace(folder / "config.json")
    partial.symlink_to(weights)
    partial.replace(folder / "model.safetensors")
    return folder
