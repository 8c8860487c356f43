"""Queries to masks: Mask2Former's decoder with masked attention.

Letters: B images, Q queries, K classes, C channels, h x w the pixels of a level, H x W those of the mask features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.attention import Attention, relu
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

    def forward(self, queries: Tensor, query_pos: Tensor, keys: Tensor, values: Tensor, attend: Tensor) -> Tensor:
        """Map queries (B, Q, C) to (B, Q, C).

        Args:
            query_pos: (Q, C).
            keys, values: the tokens of a level with and without their position, (B, h * w, C).
            attend: where each query may look, (B, Q, h * w) bool.
        """
        queries = self.norm1(queries + self.cross_attn(queries + query_pos, keys, values, attend))
        placed = queries + query_pos
        queries = self.norm2(queries + self.self_attn(placed, placed, queries))
        return self.norm3(queries + self.linear2(relu(self.linear1(queries))))


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

    @property
    def num_queries(self) -> int:
        return self.query_feat.num_embeddings

    @property
    def num_classes(self) -> int:
        """Number of classes, without "no object"."""
        return self.class_embed.out_features - 1

    def forward(self, mask_features: Tensor, levels: Sequence[Tensor], last_only: bool = False) -> list[Prediction]:
        """Return one Prediction before and after each layer.

        Args:
            mask_features: (B, C, H/4, W/4).
            levels: (B, C, h, w) each, coarsest first.
            last_only: return the last prediction alone, which is all that inference needs.
        """
        values = [
            level.flatten(2).transpose(1, 2) + embed
            for level, embed in zip(levels, self.level_embed.weight, strict=True)
        ]  # (B, h * w, C)
        keys = [value + sine_position(level).flatten(1).T for value, level in zip(values, levels, strict=True)]
        small = [shrunk(mask_features, level) for level in levels]
        queries = self.query_feat.weight.expand(mask_features.shape[0], -1, -1)  # (B, Q, C)
        outputs = [self.read(queries)]
        for i, layer in enumerate(self.layers):
            i = i % len(levels)
            attend = attention_mask(outputs[-1][1], small[i])
            queries = layer(queries, self.query_embed.weight, keys[i], values[i], attend)
            outputs.append(self.read(queries))
        return self.predict(outputs[-1:] if last_only else outputs, mask_features)

    def read(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The norm of the queries (B, Q, C), which classes are read from, and the kernels (B, Q, C) of their masks."""
        queries = self.norm(queries)
        return queries, self.mask_embed(queries)

    def predict(self, outputs: Sequence[tuple[Tensor, Tensor]], mask_features: Tensor) -> list[Prediction]:
        """One prediction for each result of `read`, in one product with the mask features (B, C, H/4, W/4)."""
        queries, kernels = (torch.stack(parts, 1) for parts in zip(*outputs, strict=True))  # (B, layers, Q, C) each
        masks = (kernels.flatten(1, 2) @ mask_features.flatten(2)).view(*kernels.shape[:3], *mask_features.shape[-2:])
        return [Prediction(*one) for one in zip(self.class_embed(queries).unbind(1), masks.unbind(1), strict=True)]


@torch.no_grad()
def shrunk(mask_features: Tensor, level: Tensor) -> Tensor:
    """Mask features (B, C, H/4, W/4) at the size of a level: (B, C, h, w).

    Masks are linear in them, so masks of shrunk features are shrunk masks. Shrinking the features once is less work
    than shrinking all masks after each layer, and only the masks that are returned are computed in full.
    """
    return F.interpolate(mask_features, level.shape[-2:], mode="bilinear", align_corners=False)


@torch.no_grad()
def attention_mask(kernels: Tensor, mask_features: Tensor) -> Tensor:
    """Where a query may look (B, Q, h * w) bool: inside its mask, or everywhere if that is empty.

    Args:
        kernels: of the masks, (B, Q, C).
        mask_features: at the size of the level, (B, C, h, w).
    """
    inside = kernels @ mask_features.flatten(2) >= 0  # sigmoid >= 0.5
    return inside | ~inside.any(-1, keepdim=True)
