"""Turbo's and Nano's T3 as a vLLM 0.9.2 model: vLLM's own GPT-2 blocks, upstream's weights, one table for all ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.models.gpt2 import GPT2Model

from engines.model_spec import SPEAKER_EMBEDDING_DIM, SPEECH_VOCAB, T3Spec
from engines.t3.model import T3Net
from engines.t3.vllm.embedding import IdEmbedding
from engines.t3.vllm.heads import padded_heads
from engines.t3.vllm.vocab import IdSpace
from engines.voice import Voice

_BLOCKS = "tfmr."
_UNUSED = "tfmr.wte.weight"  # GPT-2's own embedding
_PARTS = {"speaker": "cond_enc.spkr_enc", "head": "speech_head"}  # ours -> upstream's
_KINDS = ("weight", "bias")


class T3ForVllm(nn.Module):
    """The model that vLLM calls. The dimensions come from config.json (model_dir.py)."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        space = IdSpace(config.mynah_text_vocab, config.mynah_voice_slots)
        with padded_heads(config.n_embd // config.n_head):
            self.transformer = GPT2Model(vllm_config=vllm_config, prefix="transformer")
        self.transformer.wte = IdEmbedding(space, config.n_embd)
        # float32 for every dtype of the model: used once per voice
        self.speaker = nn.Linear(SPEAKER_EMBEDDING_DIM, config.n_embd, dtype=torch.float32)
        self.head = nn.Linear(config.n_embd, SPEECH_VOCAB)

    @property
    def compiled(self) -> nn.Module:
        """The part that vLLM compiles."""
        return self.transformer  # type: ignore[no-any-return]

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
    def set_voice(self, slot: int, voice: Voice) -> None:
        """Write a voice into its slot, in place for the CUDA graphs."""
        embedding = torch.tensor(voice.speaker_embedding, device=self.speaker.weight.device)
        self.transformer.wte.voices[slot].copy_(self.speaker(embedding))

    def net(self, spec: T3Spec, layers: int) -> T3Net:
        """T3's torch net of the first layers, which computes with views of this model's tensors and copies none."""
        body = self.transformer
        outer = {name: tensor.detach() for name, tensor in self._own_tensors().items()}
        outer |= {"tfmr.wpe.weight": body.wpe.weight.data}
        outer |= {f"tfmr.ln_f.{kind}": getattr(body.ln_f, kind).data for kind in _KINDS}
        blocks = [
            # vLLM's matrices are (out, in)
            {name: each.data.t() if each.dim() == 2 else each.data for name, each in block.named_parameters()}
            for block in body.h[:layers]
        ]
        return T3Net.of_tensors(outer, blocks, spec, body.wte.table.dtype)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load upstream's file. Names and shapes were checked before vLLM was started (backend.py)."""
        own = self._own_tensors()
        loaded_own: set[str] = set()

        def of_blocks() -> Iterator[tuple[str, Tensor]]:
            for name, tensor in weights:
                if name in own:
                    own[name].copy_(tensor)
                    loaded_own.add(name)
                elif name.startswith(_BLOCKS) and name != _UNUSED:
                    yield name.removeprefix(_BLOCKS), tensor

        loaded = {f"transformer.{name}" for name in self.transformer.load_weights(of_blocks())}
        assert loaded_own == own.keys(), f"not in the file: {own.keys() - loaded_own}"
        return loaded | {"transformer.wte.table"} | {f"{part}.{kind}" for part in _PARTS for kind in _KINDS}

    def _own_tensors(self) -> dict[str, Tensor]:
        """All tensors except the blocks', by upstream's names."""
        own: dict[str, Tensor] = {
            f"{theirs}.{kind}": getattr(getattr(self, ours), kind).data
            for ours, theirs in _PARTS.items()
            for kind in _KINDS
        }
        embedding = self.transformer.wte
        return own | {"speech_emb.weight": embedding.speech, "text_emb.weight": embedding.text}
