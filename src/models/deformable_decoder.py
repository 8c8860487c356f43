"""Queries to boxes: the decoder of Deformable DETR and DINO.

Letters: B images, Q queries, D noisy ones, K classes, C channels, L levels, h x w the pixels of a level.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.models.attention import DeformableAttention
from src.models.box_prediction import BoxPrediction
from src.models.boxes import moved
from src.models.denoising import Denoising, Noised, visible
from src.models.proposals import Memory
from src.models.queries import LearnedQueries, MixedQueries, ProposedQueries
from src.models.query_layer import QueryLayer, class_head, step_head

Queries = LearnedQueries | ProposedQueries | MixedQueries


class DeformableDecoder(nn.Module):
    """Queries sample the levels around their points or boxes (Deformable DETR, section 4.2; DINO, section 3).

    Args:
        queries: where they come from; called with dim.
        refine: each layer moves the boxes of the one before, which it does not train (Deformable DETR, section A.3);
            False: references stay.
        share_heads: one pair of heads for all layers also where they refine (DINO's code); without refinement there is
            one anyway.
        look_forward_twice: a layer's boxes train the layer before as well (DINO, section 3.5).
        denoising: queries made of noisy truth in training; called with num_classes and dim; None: none are.
        sampling: form of deformable sampling, see `Encoder`.

    The heads of proposals are the last ones. Raises ValueError for denoising of queries whose positions are fixed.
    """

    def __init__(
        self,
        num_classes: int,
        queries: Callable[..., Queries],
        dim: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int = 4,
        num_levels: int = 4,
        dim_feedforward: int = 1024,
        refine: bool = False,
        share_heads: bool = False,
        look_forward_twice: bool = False,
        denoising: Callable[..., Denoising] | None = None,
        dropout: float = 0.0,
        sampling: str = "auto",
    ):
        super().__init__()
        self.num_classes, self.refine, self.look_forward_twice = num_classes, refine, look_forward_twice
        self.queries = queries(dim=dim)
        self.num_queries = self.queries.num_queries
        if denoising is not None and not self.queries.follows_boxes:
            name = type(self.queries).__name__
            raise ValueError(f"denoising with queries={name}: expected MixedQueries, whose positions follow boxes")
        self.layers = nn.ModuleList(
            QueryLayer(
                DeformableAttention(dim, num_levels, num_heads, num_points, sampling),
                dim,
                num_heads,
                dim_feedforward,
                dropout,
            )
            for _ in range(num_layers)
        )
        proposes = self.queries.proposes
        self.own_heads = refine and not share_heads  # of each layer
        count = (num_layers if self.own_heads else 1) + proposes
        self.class_heads = nn.ModuleList(class_head(dim, num_classes) for _ in range(count))
        self.box_heads = nn.ModuleList(step_head(dim, from_point=not (proposes or i)) for i in range(count))
        self.denoising = None if denoising is None else denoising(num_classes=num_classes, dim=dim)

    def forward(
        self,
        levels: Sequence[Tensor],
        pos: Sequence[Tensor],
        inside: Sequence[Tensor] | None = None,
        last_only: bool = False,
        truths: Sequence[Any] | None = None,
    ) -> list[BoxPrediction]:
        """Return one prediction after each layer, with K class logits, after those of proposals and noisy queries.

        Args:
            levels: (B, C, h, w) each, coarsest first.
            pos: not read; queries find tokens by place.
            inside: the pixels of each level inside the image, (B, h, w) bool each; None: all.
            last_only: return the last prediction alone, which is all that inference needs.
            truths: of each image; in training, noisy queries are made of them.
        """
        memory = Memory.of(levels, inside)
        start = self.queries(memory, self.class_heads[-1], self.box_heads[-1])
        content, reference, attend, noised = start.content, start.reference, None, None
        if self.denoising is not None and self.training and truths is not None and not last_only:
            noised = self.denoising(truths)
            attend = visible(noised.group, content.shape[1])
            content = torch.cat([noised.content, content], 1)  # (B, D + Q, C)
            reference = torch.cat([noised.boxes, reference], 1)
        predictions = self.run(memory, content, reference, start.position, attend, last_only)
        if noised is not None:
            predictions = apart(predictions, noised)
        return predictions if last_only or start.proposals is None else [start.proposals, *predictions]

    def run(
        self,
        memory: Memory,
        queries: Tensor,
        reference: Tensor,
        position: Callable[[Tensor], Tensor],
        attend: Tensor | None,
        last_only: bool,
    ) -> list[BoxPrediction]:
        """The prediction after each layer, or after the last alone, of queries (B, Q, C)."""
        predictions = []
        trained = reference  # as `reference`, with gradients of the layer before if it looks forward twice
        for i, layer in enumerate(self.layers):
            placed = memory.placed(reference)  # (B, Q, L, 2 or 4)
            around = memory.tokens, placed, memory.sizes, memory.inside
            queries = layer(queries, position(reference), attend, *around)
            wanted = not last_only or i == len(self.layers) - 1
            if not (wanted or self.refine):
                continue
            head = i if self.own_heads else 0
            step = self.box_heads[head](queries)
            if wanted:
                predictions.append(BoxPrediction(self.class_heads[head](queries), moved(trained, step)))
            if self.refine:
                new = moved(reference, step)
                reference = new.detach()
                trained = new if self.look_forward_twice else reference
        return predictions


def apart(predictions: Sequence[BoxPrediction], noised: Noised) -> list[BoxPrediction]:
    """Predictions of noisy queries, with their pairs, before those of the matched queries behind them."""
    count = noised.boxes.shape[1]
    noisy = [BoxPrediction(p.class_logits[:, :count], p.boxes[:, :count], noised.pairs) for p in predictions]
    return noisy + [BoxPrediction(p.class_logits[:, count:], p.boxes[:, count:]) for p in predictions]
