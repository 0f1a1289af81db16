"""The embedding of everything that T3 reads under vLLM: one table and one gather for all ids of vocab.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.t3.vllm.vocab import IdSpace


class IdEmbedding(nn.Module):
    """ids (n,) -> (n, width).

    It must be part of the compiled model. A CUDA graph reads its inputs at the addresses of its capture: vLLM keeps the
    ids at one address, but embeddings computed outside would have another address at every step.
    """

    def __init__(self, space: IdSpace, width: int) -> None:
        super().__init__()
        self.space = space
        # zeros, so that a slot without a voice embeds to finite values
        self.table = nn.Parameter(torch.zeros(space.rows, width), requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(self.space.rows_of(ids), self.table)

    @property
    def speech(self) -> Tensor:
        """The table's rows of speech tokens, (6563, width)."""
        return self.table.data[: self.space.first_text_row]

    @property
    def text(self) -> Tensor:
        """(text vocabulary, width)"""
        return self.table.data[self.space.first_text_row : self.space.first_voice_row]

    @property
    def voices(self) -> Tensor:
        """(voice slots, width)"""
        return self.table.data[self.space.first_voice_row :]
