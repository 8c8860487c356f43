"""Where the queries of a deformable decoder come from: learned, proposed by the encoder's tokens, or both.

Letters: B images, Q queries, K classes, C channels, S tokens of the encoder.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.models.box_prediction import BoxPrediction
from src.models.boxes import box_embedding
from src.models.proposals import Memory, Proposals

Head = Callable[[Tensor], Tensor]


class Start(NamedTuple):
    """Queries before the first layer."""

    content: Tensor  # (B, Q, C)
    reference: Tensor  # points (B, Q, 2) or boxes (B, Q, 4), in 0..1 of the image
    position: Callable[[Tensor], Tensor]  # from the references before a layer to the positions (B, Q, C) in it
    proposals: BoxPrediction | None  # what the tokens propose, to be trained; None: nothing


class LearnedQueries(nn.Module):
    """Contents and positions are learned, and a point is computed from each position (Deformable DETR, section 4.2)."""

    proposes = False
    follows_boxes = False

    def __init__(self, num_queries: int, dim: int):
        super().__init__()
        self.num_queries = num_queries
        self.query_feat = nn.Embedding(num_queries, dim)
        self.query_embed = nn.Embedding(num_queries, dim)
        self.reference = nn.Linear(dim, 2)
        nn.init.xavier_uniform_(self.reference.weight)
        nn.init.zeros_(self.reference.bias)

    def forward(self, memory: Memory, class_head: Head, box_head: Head) -> Start:
        """The same queries for every image; the heads are not used."""
        parts = (
            self.query_feat.weight,
            self.reference(self.query_embed.weight).float().sigmoid(),
            self.query_embed.weight,
        )
        content, reference, position = (part.expand(len(memory.tokens), -1, -1) for part in parts)
        return Start(content, reference, lambda _: position, None)


class ProposedQueries(nn.Module):
    """The best proposals become queries: two stages (Deformable DETR, section A.4).

    Proposals know no classes: the first logit alone says how good one is.
    """

    proposes = True
    follows_boxes = False

    def __init__(self, num_queries: int, dim: int):
        super().__init__()
        self.num_queries = num_queries
        self.proposals = Proposals(dim)
        self.embed = nn.Linear(2 * dim, 2 * dim)
        self.norm = nn.LayerNorm(2 * dim)
        nn.init.xavier_uniform_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)

    def forward(self, memory: Memory, class_head: Head, box_head: Head) -> Start:
        """Position and content are computed from the proposed boxes; all tokens' proposals are to be trained."""
        features, boxes = self.proposals(memory)
        logits, boxes = class_head(features), boxes + box_head(features)  # (B, S, K), (B, S, 4)
        reference = chosen(boxes, best(logits[..., 0], self.num_queries)).detach().sigmoid()
        embedding = box_embedding(reference, memory.tokens.shape[-1])
        position, content = self.norm(self.embed(embedding)).chunk(2, -1)
        return Start(content, reference, lambda _: position, BoxPrediction(logits, boxes.sigmoid(), classless=True))


class MixedQueries(nn.Module):
    """Contents are learned, boxes are the best proposals of any class (DINO, section 3.4).

    Positions are computed from the boxes before each layer, as in DAB-DETR.
    """

    proposes = True
    follows_boxes = True

    def __init__(self, num_queries: int, dim: int):
        super().__init__()
        self.num_queries = num_queries
        self.proposals = Proposals(dim)
        self.query_feat = nn.Embedding(num_queries, dim)
        linears = nn.Linear(2 * dim, dim), nn.Linear(dim, dim)
        for linear in linears:
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.embed = nn.Sequential(linears[0], nn.ReLU(), linears[1])

    def forward(self, memory: Memory, class_head: Head, box_head: Head) -> Start:
        """The chosen proposals alone are to be trained, with their classes."""
        features, boxes = self.proposals(memory)
        logits = class_head(features)  # (B, S, K)
        places = best(logits.amax(-1), self.num_queries)
        features, boxes = chosen(features, places), chosen(boxes.expand(*logits.shape[:2], -1), places)
        boxes = (boxes + box_head(features)).sigmoid()  # (B, Q, 4)
        content = self.query_feat.weight[: places.shape[1]].expand(len(features), -1, -1)
        proposals = BoxPrediction(chosen(logits, places), boxes)
        return Start(content, boxes.detach(), self.position, proposals)

    def position(self, boxes: Tensor) -> Tensor:
        """The positions (B, Q, C) of boxes (B, Q, 4)."""
        return self.embed(box_embedding(boxes, self.query_feat.embedding_dim))


def best(scores: Tensor, count: int) -> Tensor:
    """The places (B, Q) of the best of scores (B, S): `count` of them, or all if there are fewer."""
    return torch.topk(scores, min(count, scores.shape[1]), dim=1).indices


def chosen(values: Tensor, places: Tensor) -> Tensor:
    """Of values (B, S, D) those at some places (B, Q): (B, Q, D)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))
