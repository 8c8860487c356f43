"""Queries to boxes: DETR's decoder.

Letters: B images, Q queries, K classes, C channels, S tokens of the encoder, h x w the pixels of a level.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.models.attention import Attention
from src.models.box_prediction import BoxPrediction
from src.models.query_layer import BoxHead, QueryLayer


class DetrDecoder(nn.Module):
    """DETR's decoder (section 3.2): queries start at zero, and learned positions tell them apart.

    Attention is to all tokens inside the image. One norm and one pair of heads read the queries after every layer.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int = 256,
        num_queries: int = 100,
        num_layers: int = 6,
        num_heads: int = 8,
        dim_feedforward: int = 2048,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.num_classes, self.num_queries = num_classes, num_queries
        self.query_embed = nn.Embedding(num_queries, dim)
        self.layers = nn.ModuleList(
            QueryLayer(cross_attention(dim, num_heads, dropout), dim, num_heads, dim_feedforward, dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.class_heads = nn.ModuleList([nn.Linear(dim, num_classes + 1)])
        self.box_heads = nn.ModuleList([BoxHead(dim)])

    def forward(
        self,
        levels: Sequence[Tensor],
        pos: Sequence[Tensor],
        inside: Sequence[Tensor] | None = None,
        last_only: bool = False,
        truths: Sequence[Any] | None = None,
    ) -> list[BoxPrediction]:
        """Return one prediction after each layer, with K + 1 class logits.

        Args:
            levels: (B, C, h, w) each.
            pos: their positions, (C, h, w) or (B, C, h, w) each.
            inside: the pixels of each level inside the image, (B, h, w) bool each; None: all.
            last_only: return the last prediction alone, which is all that inference needs.
            truths: not read; other decoders train on them.
        """
        values = torch.cat([level.flatten(2).mT for level in levels], 1)  # (B, S, C)
        keys = values + torch.cat([p.flatten(-2).mT for p in pos], -2)
        attend = None if inside is None else torch.cat([i.flatten(1) for i in inside], 1)[:, None]  # (B, 1, S)
        position = self.query_embed.weight
        queries = values.new_zeros(len(values), *position.shape)  # (B, Q, C)
        outputs = []
        for layer in self.layers:
            queries = layer(queries, position, None, keys, values, attend)
            outputs.append(queries)
        return [self.read(queries) for queries in (outputs[-1:] if last_only else outputs)]

    def read(self, queries: Tensor) -> BoxPrediction:
        """The prediction of queries (B, Q, C)."""
        queries = self.norm(queries)
        return BoxPrediction(self.class_heads[0](queries), self.box_heads[0](queries).float().sigmoid())


def cross_attention(dim: int, num_heads: int, dropout: float) -> Attention:
    """Attention initialised as DETR's."""
    attention = Attention(dim, num_heads, dropout)
    nn.init.xavier_uniform_(attention.in_proj.weight)
    nn.init.xavier_uniform_(attention.out_proj.weight)
    return attention
