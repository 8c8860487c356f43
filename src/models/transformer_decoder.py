"""Queries to masks: Mask2Former's decoder with masked attention.

Letters: B images, Q queries, K classes, C channels, h x w the pixels of a level, H x W those of the mask features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from src.models.attention import Attention
from src.models.position import sine_position


class Prediction(NamedTuple):
    """The output of one decoder layer."""

    class_logits: Tensor  # (B, Q, K + 1), the last is "no object"
    mask_logits: Tensor  # (B, Q, H/4, W/4)


class DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward; norms come after (Mask2Former, section 3.2.1)."""

    def __init__(self, dim: int, num_heads: int, dim_feedforward: int):
        super().__init__()
        self.cross_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm3 = nn.LayerNorm(dim)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, queries: Tensor, query_pos: Tensor, memory: Tensor, pos: Tensor, attend: Tensor) -> Tensor:
        """Queries (B, Q, C), memory (B, h * w, C) and where each query may look (B, Q, h * w) to (B, Q, C)."""
        queries = self.norm1(queries + self.cross_attn(queries + query_pos, memory + pos, memory, attend))
        placed = queries + query_pos
        queries = self.norm2(queries + self.self_attn(placed, placed, queries))
        return self.norm3(queries + self.linear2(F.relu(self.linear1(queries), inplace=True)))


class MLP(nn.Sequential):
    """Three linear layers with ReLU between them."""

    def __init__(self, dim: int):
        super().__init__(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))


class TransformerDecoder(nn.Module):
    """Mask2Former's decoder: layer i reads level i mod 3, coarsest first, inside the masks predicted so far."""

    def __init__(
        self,
        num_classes: int,
        dim: int = 256,
        num_queries: int = 100,
        num_layers: int = 9,
        num_heads: int = 8,
        dim_feedforward: int = 2048,
        num_levels: int = 3,
    ):
        super().__init__()
        self.query_feat = nn.Embedding(num_queries, dim)
        self.query_embed = nn.Embedding(num_queries, dim)
        self.level_embed = nn.Embedding(num_levels, dim)
        self.layers = nn.ModuleList(DecoderLayer(dim, num_heads, dim_feedforward) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        self.class_embed = nn.Linear(dim, num_classes + 1)
        self.mask_embed = MLP(dim)

    def forward(self, mask_features: Tensor, levels: Sequence[Tensor]) -> list[Prediction]:
        """Mask features (B, C, H/4, W/4) and levels (B, C, h, w) to one Prediction before and after each layer."""
        memories = [
            level.flatten(2).transpose(1, 2) + embed
            for level, embed in zip(levels, self.level_embed.weight, strict=True)
        ]  # (B, h * w, C)
        pos = [sine_position(level).flatten(1).T for level in levels]
        queries = self.query_feat.weight.expand(len(mask_features), -1, -1)  # (B, Q, C)
        predictions = [self.predict(queries, mask_features)]
        for i, layer in enumerate(self.layers):
            i = i % len(levels)
            attend = attention_mask(predictions[-1].mask_logits, levels[i])
            queries = layer(queries, self.query_embed.weight, memories[i], pos[i], attend)
            predictions.append(self.predict(queries, mask_features))
        return predictions

    def predict(self, queries: Tensor, mask_features: Tensor) -> Prediction:
        """The prediction of queries (B, Q, C) for mask features (B, C, H/4, W/4)."""
        queries = self.norm(queries)
        masks = (self.mask_embed(queries) @ mask_features.flatten(2)).unflatten(-1, mask_features.shape[-2:])
        return Prediction(self.class_embed(queries), masks)


def attention_mask(mask_logits: Tensor, level: Tensor) -> Tensor:
    """Where a query may look (B, Q, h * w) bool: inside its mask at the level's size, everywhere if that is empty."""
    resized = F.interpolate(mask_logits.detach(), level.shape[-2:], mode="bilinear", align_corners=False)
    inside = resized.flatten(2) >= 0  # sigmoid >= 0.5
    return inside | ~inside.any(-1, keepdim=True)
