"""What detectors predict.

Letters: B images, Q queries, K classes, M pairs of a query and an object.
"""

from typing import NamedTuple

from torch import Tensor


class Pairs(NamedTuple):
    """Queries of a batch and the objects that they stand for."""

    image: Tensor  # (M,)
    query: Tensor  # (M,)
    segment: Tensor  # (M,), the object's place in the truth, from 0


class BoxPrediction(NamedTuple):
    """The output of one decoder layer, of an encoder's proposals or of denoising queries.

    With K + 1 columns, the last is "no object" and classes exclude each other (softmax; DETR). With K columns, each is
    a question of its own (sigmoid; Deformable DETR, DINO).
    """

    class_logits: Tensor  # (B, Q, K + 1) or (B, Q, K)
    boxes: Tensor  # (B, Q, 4) float32, centre x, centre y, width, height in 0..1 of the image
    match: Pairs | None = None  # of denoising queries, whose objects are known; None: the matcher finds the pairs
    classless: bool = False  # proposals without classes (Deformable DETR, two-stage): every object counts as class 0
