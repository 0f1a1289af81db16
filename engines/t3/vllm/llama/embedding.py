"""The embedding of everything that a Llama T3 reads under vLLM: two gathers for all ids of vocab.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.t3.vllm.llama.vocab import LaneIds


class LaneEmbedding(nn.Module):
    """ids (n,) -> (n, 2, width). Lane 1 of a text's id is its place alone. It is compiled, as IdEmbedding is."""

    def __init__(self, ids: LaneIds) -> None:
        super().__init__()
        self.ids = ids
        width = ids.spec.width
        # zeros, so that a slot without a voice embeds to finite values, and place 0 to nothing
        self.table = nn.Parameter(torch.zeros(ids.rows, width), requires_grad=False)
        self.places = nn.Parameter(torch.zeros(ids.places, width), requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        place = F.embedding(self.ids.places_of(ids), self.places)
        with_text = F.embedding(self.ids.rows_of(ids), self.table)
        without_text = with_text.masked_fill(self.ids.are_text(ids).unsqueeze(-1), 0.0)
        return torch.stack([with_text, without_text], dim=1) + place.unsqueeze(1)

    @property
    def exaggerations(self) -> Tensor:
        """The table's rows of exaggeration, (EXAGGERATION_ROWS, width)."""
        return self.table.data[self.ids.first_exaggeration_row : self.ids.first_voice_row]

    def tensors(self) -> dict[str, Tensor]:
        """Those that upstream's file has, by its names."""
        ids, table, places = self.ids, self.table.data, self.places.data
        return {
            "speech_emb.weight": table[: ids.first_text_row],
            "text_emb.weight": table[ids.first_text_row : ids.first_exaggeration_row],
            "text_pos_emb.emb.weight": places[1 : ids.first_speech_place],
            "speech_pos_emb.emb.weight": places[ids.first_speech_place :],
        }
