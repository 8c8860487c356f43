"""The two attentions: deformable (encoder) and masked (decoder).

Letters: B images, N query tokens, S sampled tokens, C channels, M heads, D = C/M, L levels, P points.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.sampling import Size, form_for, softmax
from src.models.sampling_operation import counted


def check_heads(dim: int, num_heads: int) -> None:
    """Raise ValueError unless the heads share the channels equally."""
    if dim % num_heads:
        raise ValueError(f"num_heads={num_heads}: expected a divisor of dim={dim}")


def relu(x: Tensor) -> Tensor:
    """In place at inference; in training that would copy the gradient of a linear layer's output, which is a view."""
    return F.relu(x, inplace=not torch.is_grad_enabled())


class DeformableAttention(nn.Module):
    """Each token samples a few learnt places of every level (Deformable DETR, eq. 3; Mask2Former's pixel decoder)."""

    def __init__(self, dim: int, num_levels: int, num_heads: int = 8, num_points: int = 4, sampling: str = "auto"):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.num_levels, self.num_points, self.sampling = num_heads, num_levels, num_points, sampling
        self.sampling_offsets = nn.Linear(dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start on rings: head h looks in direction 2 pi h / M, point p at p pixels; all places weigh the same."""
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)  # (M, 2)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1)[:, None]  # (P, 1)
        rings = (direction[:, None, None] * steps).expand(-1, self.num_levels, -1, -1)  # (M, L, P, 2)
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(rings.flatten())

    def forward(
        self, query: Tensor, value: Tensor, reference: Tensor, sizes: Sequence[Size], inside: Tensor | None = None
    ) -> Tensor:
        """What each query gathers around its place, (B, N, C).

        Args:
            query: (B, N, C), with position.
            value: (B, S, C), the sampled levels one after the other, S = sum of their h * w.
            reference: places in 0..1 of the levels: (N, 2), (x, y) of each query on every level; (B, N, L, 2), on each
                level; or boxes (B, N, L, 4), (x, y, width, height) with x, y of their centres, whose size scales the
                offsets (Deformable DETR, section A.4).
            sizes: (h, w) of each of the L sampled levels.
            inside: (B, S) bool, False: a token outside its image, whose value counts as zero.
        """
        reference = reference[:, None] if reference.dim() == 2 else reference  # (N, 1, 2), the same on every level
        x, y = (self.locate(query, axis, reference[..., axis::2], [s[1 - axis] for s in sizes]) for axis in (0, 1))
        weights = softmax(self.attention_weights(query).float().unflatten(-1, (self.num_heads, -1)))  # (B, N, M, L * P)
        values = self.value_proj(value)
        if inside is not None:
            values = values.masked_fill(~inside[..., None], 0.0)
        values = values.unflatten(-1, (self.num_heads, -1))  # (B, S, M, D)
        sample = form_for(values, self.sampling)
        return self.output_proj(sample(values, sizes, x, y, weights.view_as(x)))

    def locate(self, query: Tensor, axis: int, reference: Tensor, lengths: Sequence[int]) -> Tensor:
        """Coordinates x (axis 0) or y of each query's places in pixels of each level, (B, N, M, L, P).

        One axis at a time keeps memory contiguous for what follows. `reference` is (..., N, L or 1, 1 or 2): a centre
        in 0..1, and the extent of a box if it is one; lengths are those of the L levels.
        """
        projection = self.sampling_offsets
        weight, bias = projection.weight[axis::2], projection.bias[axis::2].contiguous()
        offsets = F.linear(query, weight, bias).float().unflatten(-1, (self.num_heads, -1))  # in pixels
        length = counted(lengths, reference)  # (L,)
        centre, *extent = (reference * length[:, None]).unbind(-1)  # (..., N, L) each, in pixels
        if extent:  # an offset of the number of points is half a side of the box
            scale = extent[0] * (0.5 / self.num_points)
            offsets = offsets * scale.repeat_interleave(self.num_points, -1).unsqueeze(-2)
        places = offsets + (centre - 0.5).repeat_interleave(self.num_points, -1).unsqueeze(-2)
        return places.unflatten(-1, (self.num_levels, self.num_points))


class Attention(nn.Module):
    """Multi-head attention whose keys may be masked per query; `dropout` is of its weights, in training."""

    def __init__(self, dim: int, num_heads: int = 8, dropout: float = 0.0):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj = nn.Linear(dim, 3 * dim)  # query, key, value
        self.out_proj = nn.Linear(dim, dim)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attend: Tensor | None = None) -> Tensor:
        """Query (B, N, C), key and value (B, S, C), attend bool (True: may look) to (B, N, C).

        `attend` is (B, N, S), or (B, 1, S) or (1, N, S) where queries or images are alike.
        """
        projections = zip((query, key, value), self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3), strict=True)
        q, k, v = (F.linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x, w, b in projections)
        mask = None if attend is None else attend[:, None]
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, mask, dropout).transpose(1, 2).flatten(2))
