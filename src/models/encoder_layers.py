"""The layers of an encoder: deformable attention (Deformable DETR, Mask2Former) or attention to all tokens (DETR).

Letters: B images, S tokens of the levels that a layer reads, N those among them that it updates, C channels.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.attention import Attention, DeformableAttention, relu
from src.models.position import Places
from src.models.sampling import describe_form
from src.models.sampling_operation import Size


class PostNormLayer(nn.Module):
    """Attention, then a feed-forward network, each followed by its norm.

    Args:
        dropout: of what both add, and of hidden values, in training.
    """

    def __init__(
        self,
        self_attn: nn.Module,
        dim: int,
        dim_feedforward: int,
        activation: Callable[[Tensor], Tensor],
        dropout: float,
    ):
        super().__init__()
        self.self_attn = self_attn
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.activation, self.dropout = activation, dropout
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def update(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Map tokens (B, N, C), with what attention gathered for them, to new ones."""
        tokens = self.norm1(tokens + self.drop(attended))
        hidden = self.drop(self.activation(self.linear1(tokens)))
        return self.norm2(tokens + self.drop(self.linear2(hidden)))

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class EncoderLayer(PostNormLayer):
    """Deformable attention to the sampled levels."""

    self_attn: DeformableAttention

    def __init__(
        self,
        dim: int,
        num_levels: int,
        num_heads: int,
        num_points: int,
        dim_feedforward: int,
        sampling: str = "auto",
        dropout: float = 0.0,
    ):
        attention = DeformableAttention(dim, num_levels, num_heads, num_points, sampling)
        super().__init__(attention, dim, dim_feedforward, relu, dropout)

    def forward(self, tokens: Tensor, own: slice, places: Places, sizes: Sequence[Size]) -> Tensor:
        """Map tokens (B, S, C) of the sampled levels to new ones (B, N, C) for the slice `own` of them.

        `places` are those of all tokens, sizes those of the levels.
        """
        queries, (pos, reference) = tokens[:, own], places.queries(own)
        return self.update(queries, self.self_attn(queries + pos, tokens, reference, sizes, places.inside))

    def form_on(self, device: torch.device) -> str:
        """The form of deformable sampling that runs on a device. Raises ValueError if the one set cannot."""
        return describe_form(device, self.self_attn.sampling)


class GlobalAttentionLayer(PostNormLayer):
    """Attention of each token to all tokens inside of its image, with positions on queries and keys.

    Args:
        activation: of the hidden values.
        dropout: as in `PostNormLayer`, and of the weights of attention.
    """

    self_attn: Attention

    def __init__(
        self,
        dim: int,
        num_heads: int,
        dim_feedforward: int,
        activation: Callable[[Tensor], Tensor] = relu,
        dropout: float = 0.0,
    ):
        attention = Attention(dim, num_heads, dropout)
        nn.init.xavier_uniform_(attention.in_proj.weight)
        super().__init__(attention, dim, dim_feedforward, activation, dropout)

    def forward(self, tokens: Tensor, own: slice, places: Places, sizes: Sequence[Size]) -> Tensor:
        """As `EncoderLayer`; the sizes of the levels do not matter."""
        placed = tokens + places.pos
        attend = None if places.inside is None else places.inside[:, None]  # (B, 1, S)
        return self.update(tokens[:, own], self.self_attn(placed[:, own], placed, tokens, attend))

    def form_on(self, device: torch.device) -> str:
        """No form of deformable sampling."""
        return "none"


class GlobalEncoderLayer(GlobalAttentionLayer):
    """DETR's encoder layer, whose matrices all start from the same distribution (DETR, section A.4).

    Args:
        num_levels, num_points, sampling: of deformable layers, accepted and ignored.
        dropout: as in `GlobalAttentionLayer`.
    """

    def __init__(
        self,
        dim: int,
        num_levels: int,
        num_heads: int,
        num_points: int,
        dim_feedforward: int,
        sampling: str = "auto",
        dropout: float = 0.0,
    ):
        super().__init__(dim, num_heads, dim_feedforward, dropout=dropout)
        nn.init.xavier_uniform_(self.self_attn.out_proj.weight)
