"""The layer and the heads that detectors' decoders share.

Letters: B images, Q queries, K classes, C channels.
"""

import math

from torch import Tensor, nn

from src.models.attention import Attention, DeformableAttention, relu

PRIOR = 0.01  # probability of every class before training, where each class is a question of its own (focal loss)


class QueryLayer(nn.Module):
    """Self-attention among queries, cross-attention to the encoder's tokens, feed-forward, each followed by its norm.

    Args:
        cross_attn: `Attention` (DETR) or `DeformableAttention` (Deformable DETR).
        dropout: of the three residual branches, of self-attention's weights and inside the feed-forward network.
    """

    def __init__(
        self,
        cross_attn: Attention | DeformableAttention,
        dim: int,
        num_heads: int,
        dim_feedforward: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.self_attn = Attention(dim, num_heads, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = cross_attn
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        for part in (self.self_attn, self.linear1, self.linear2):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def forward(self, queries: Tensor, position: Tensor, attend: Tensor | None, *memory: object) -> Tensor:
        """Map queries (B, Q, C) to (B, Q, C).

        Args:
            position: (B, Q, C) or (Q, C), added where queries and keys are compared.
            attend: which queries a query may see, (1, Q, Q) bool; None: all.
            memory: what the cross-attention takes beside its queries.
        """
        placed = queries + position
        queries = self.norm1(queries + self.dropout(self.self_attn(placed, placed, queries, attend)))
        queries = self.norm2(queries + self.dropout(self.cross_attn(queries + position, *memory)))
        return self.norm3(queries + self.dropout(self.linear2(self.dropout(relu(self.linear1(queries))))))


class BoxHead(nn.Sequential):
    """Three linear layers with ReLU between them, from a query to the four numbers of a box, as logits."""

    def __init__(self, dim: int):
        super().__init__(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 4))


def class_head(dim: int, num_classes: int) -> nn.Linear:
    """From a query to the logits of K classes, each a question of its own."""
    head = nn.Linear(dim, num_classes)
    nn.init.constant_(head.bias, math.log(PRIOR / (1 - PRIOR)))
    return head


def step_head(dim: int, from_point: bool) -> BoxHead:
    """From a query to a step of its box, which is zero before training.

    `from_point`: what moves is a point, and the step's width and height are the box's: small before training.
    """
    head = BoxHead(dim)
    last = head[-1]
    nn.init.zeros_(last.weight)  # type: ignore[arg-type]
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    if from_point:
        nn.init.constant_(last.bias[2:], -2.0)  # type: ignore[index]
    return head
