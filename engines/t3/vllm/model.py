"""T3 as a vLLM model: vLLM's own GPT-2 blocks, upstream's weights, one table for everything that is read.

Knows vLLM 0.9.2's model interface and upstream's tensor names; knows nothing of requests, voices' owners or sampling.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.models.gpt2 import GPT2Model

from engines.model_spec import SPEAKER_EMBEDDING_DIM, SPEECH_VOCAB
from engines.t3.vllm.embedding import IdEmbedding
from engines.t3.vllm.vocab import IdSpace

_BLOCKS = "tfmr."
_NOT_READ = "tfmr.wte.weight"  # GPT-2's own embedding, which T3 has no use for
_PARTS = {"speaker": "cond_enc.spkr_enc", "head": "speech_head"}  # ours -> upstream's
_KINDS = ("weight", "bias")


class T3ForVllm(nn.Module):
    """What vLLM calls. The folder's config.json (model_dir.py) says the dimensions."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        space = IdSpace(config.mynah_text_vocab, config.mynah_voice_slots)
        self.transformer = GPT2Model(vllm_config=vllm_config, prefix="transformer")
        self.transformer.wte = IdEmbedding(space, config.n_embd)
        # float32 whatever the model's dtype: used once per voice
        self.speaker = nn.Linear(SPEAKER_EMBEDDING_DIM, config.n_embd, dtype=torch.float32)
        self.head = nn.Linear(config.n_embd, SPEECH_VOCAB)

    def get_input_embeddings(self, input_ids: Tensor) -> Tensor:
        embedded: Tensor = self.transformer.wte(input_ids)
        return embedded

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        intermediate_tensors: None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """ids and positions (n,) of all rows, in any mix of prefill and decode -> hidden states (n, width)."""
        hidden: Tensor = self.transformer(input_ids, positions, intermediate_tensors, inputs_embeds)
        return hidden

    def compute_logits(self, hidden_states: Tensor, sampling_metadata: object) -> Tensor:
        """(rows, width) -> (rows, 6563) float32."""
        logits: Tensor = self.head(hidden_states)
        return logits.float()

    @torch.inference_mode()
    def set_voice(self, slot: int, speaker_embedding: Tensor) -> None:
        """Put a voice into its slot; speaker_embedding (256,) float32. In place, where graphs find it."""
        self.transformer.wte.voices[slot].copy_(self.speaker(speaker_embedding.to(self.speaker.weight.device)))

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """From upstream's file, whose names and shapes are checked before vLLM is started (model_dir.py)."""
        own = self._own_tensors()
        found: set[str] = set()

        def of_blocks() -> Iterator[tuple[str, Tensor]]:
            for name, tensor in weights:
                if name in own:
                    own[name].copy_(tensor)
                    found.add(name)
                elif name.startswith(_BLOCKS) and name != _NOT_READ:
                    yield name.removeprefix(_BLOCKS), tensor

        loaded = {f"transformer.{name}" for name in self.transformer.load_weights(of_blocks())}
        assert found == own.keys(), f"not in the file: {own.keys() - found}"
        return loaded | {"transformer.wte.table"} | {f"{part}.{kind}" for part in _PARTS for kind in _KINDS}

    def _own_tensors(self) -> dict[str, Tensor]:
        """Everything but the blocks, under upstream's names."""
        own: dict[str, Tensor] = {
            f"{theirs}.{kind}": getattr(getattr(self, ours), kind).data
            for ours, theirs in _PARTS.items()
            for kind in _KINDS
        }
        embedding = self.transformer.wte
        return own | {"speech_emb.weight": embedding.speech, "text_emb.weight": embedding.text}
