"""Multi-head attention, as the encoder and the predictor use it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention with an optional additive bias (b, queries, keys), shared by the heads."""

    def __init__(self, width: int, heads: int, memory_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value, self.out = (
            nn.Linear(width, width), nn.Linear(memory_width or width, 2 * width), nn.Linear(width, width)
        )  # fmt: skip

    def forward(self, queries: Tensor, memory: Tensor, bias: Tensor | None = None) -> Tensor:
        """queries (b, q, d), memory (b, k, m) -> (b, q, d)."""
        b, q, d = queries.shape
        heads = self.heads
        query = self.query(queries).view(b, q, heads, d // heads).transpose(1, 2)
        key, value = (x.view(b, -1, heads, d // heads).transpose(1, 2) for x in self.key_value(memory).chunk(2, dim=-1))
        mask = None if bias is None else bias[:, None].to(query.dtype)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return torch.as_tensor(self.out(mixed.transpose(1, 2).reshape(b, q, d)))
