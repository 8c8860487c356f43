"""A trained model that answers: photos in, segments out, each at the exit that a gate, a budget or the user chooses."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from src.metrics.cost import ImageCost, Size
from src.models.merging import View, merge_views
from src.tasks.batches import like_sized
from src.tasks.evaluation import ImagePrediction
from src.tasks.gated_evaluation import GatedEvaluation


class PredictionTask(GatedEvaluation):
    """Answers photos of any size; several views of a photo are answered together (see `merge_views`).

    Args:
        resize: brings a photo (3, H, W) to the size it is looked at, and knows of a size which one that is.
        exit: where every image leaves; null: as the gate or the budget says, without either the deepest exit.
        gate, beta: as `GatedEvaluation`.
        budget_gflops: with a gate, the mean cost to keep to; without one, the most that an image may cost: it leaves at
            the deepest exit within that.
        scales: of the views, times the size that `resize` brings them to; the first one rules masks and exit.
        mirror: look at every scale also with left and right exchanged.
        max_pixels: of an answer; a larger photo's is made so large, for memory's sake, and `whole` enlarges it.
        others: as `Segmentation`.
    """

    def __init__(
        self,
        *,
        resize: Any,
        exit: int | None = None,
        gate: str | None = None,
        budget_gflops: float | None = None,
        scales: Sequence[float] = (1.0,),
        mirror: bool = False,
        max_pixels: int = 4_000_000,
        **others: Any,
    ):
        if exit is not None and (gate, budget_gflops) != (None, None):
            name, value = ("gate", gate) if gate is not None else ("budget_gflops", budget_gflops)
            raise ValueError(f"exit={exit} and {name}={value}: both choose where images leave; expected one of them")
        super().__init__(gate=gate, budget_gflops=None if gate is None else budget_gflops, **others)
        if exit not in (None, *self.model.exits):
            raise ValueError(f"exit={exit}: the model has the exits {self.model.exits}, expected one of them")
        self.exit = self.model.exits[-1] if exit is None else exit
        self.budget = budget_gflops if gate is None else None
        self.resizes = [resize.scaled(scale) for scale in scales]
        self.mirror, self.max_pixels = mirror, max_pixels
        counted = [self.exit] if self.budget is None and not self.gated else self.model.exits
        self.cost_of = ImageCost(self.model, counted, self.segmentation)

    def padded(self, size: Size) -> Size:
        """The (height, width) that a photo of a size has in a batch, by which photos go together."""
        return self.model.padded(self.resizes[0].resized(*size))

    @torch.no_grad()
    def segment(self, photos: Sequence[Tensor]) -> list[ImagePrediction]:
        """What the model makes of photos (3, H, W) uint8 RGB on the CPU, and what each cost.

        Answers to photos of more than `max_pixels` are smaller than these. An answer does not depend on what else is
        asked. Raises ValueError for a budget that no exit keeps to.
        """
        sizes = [photo.shape[-2:] for photo in photos]
        made = [bounded(size, self.max_pixels) for size in sizes]
        costs = [self.costs(size, prod(frame)) for size, frame in zip(sizes, made, strict=True)]
        depths: Any = None if self.gated else [self.within(cost) for cost in costs]
        pairs: list[list[list[View]]] = [[] for _ in photos]
        for resize in self.resizes:
            images = [resize.image(photo) for photo in photos]
            plain, depths = self.look(images, False, depths)
            mirrored = self.look([image.flip(-1) for image in images], True, depths)[0] if self.mirror else []
            for place, views in enumerate(zip(plain, mirrored, strict=True) if mirrored else zip(plain, strict=True)):
                pairs[place].append(list(views))
        return [self.answer(*of_one) for of_one in zip(pairs, sizes, made, depths, costs, strict=True)]

    def look(self, images: list[Tensor], mirrored: bool, depths: list[int] | None) -> tuple[list[View], list[int]]:
        """One view of each photo (3, h, w), and where they left: as asked, or as the gate says."""
        views: dict[int, View] = {}
        left: dict[int, int] = {}
        for places in like_sized(images):
            batch = self.model.preprocess([images[place].to(self.device) for place in places])
            layers, found = self.model.leave(batch, chosen(depths and [depths[place] for place in places]))
            for place, depth, scores, masks in zip(places, found, *layers[-1], strict=True):
                views[place] = View(scores, masks, batch.shape[-2:], images[place].shape[-2:], mirrored)
                left[place] = depth
        return [views[place] for place in range(len(images))], [left[place] for place in range(len(images))]

    def answer(
        self, pairs: list[list[View]], size: Size, made: Size, depth: int, costs: list[float]
    ) -> ImagePrediction:
        """The answer of one photo of a size, from its views, made at another."""
        prediction, frame = merge_views(pairs, made)
        answer = self.evaluation.answer(prediction, 0, frame)
        cost = costs[self.cost_of.exits.index(depth)]
        return answer._replace(exit=depth, gflops=cost, size=(size[0], size[1]))

    def whole(self, answer: ImagePrediction) -> ImagePrediction:
        """An answer at the size of its photo."""
        assert answer.size is not None
        return enlarged(answer, answer.size)

    def costs(self, size: Size, pixels: int) -> list[float]:
        """GMAC at every exit that may be taken, of all views of a photo that is answered with so many pixels."""
        views = [self.cost_of(resize.resized(*size), pixels) for resize in self.resizes]
        return [(1 + self.mirror) * sum(exits) for exits in zip(*views, strict=True)]

    def within(self, costs: list[float]) -> int:
        """The deepest exit that keeps to the budget; without one, the exit that was asked for."""
        if self.budget is None:
            return self.exit
        kept = [depth for depth, cost in zip(self.model.exits, costs, strict=True) if cost <= self.budget]
        if not kept:
            raise ValueError(
                f"budget_gflops={self.budget:g}: an image costs {costs[0]:.6g} at exit {self.model.exits[0]} already; "
                "expected that or more"
            )
        return kept[-1]


def chosen(depths: list[int] | None) -> Callable[[list[Tensor]], list[int]] | None:
    """What tells a model where to leave; None, which asks the gate, where nothing is said."""
    return None if depths is None else lambda levels: depths


def bounded(size: Size, max_pixels: int) -> Size:
    """A (height, width), or one in proportion that has so many pixels at most."""
    scale = min((max_pixels / prod(size)) ** 0.5, 1)
    return [max(int(side * scale), 1) for side in size] if scale < 1 else list(size)


def enlarged(answer: ImagePrediction, size: Size) -> ImagePrediction:
    """An answer at another (H, W), each pixel that of the nearest."""
    panoptic, instances, semantic = answer.panoptic, answer.instances, answer.semantic
    if panoptic is not None:
        panoptic = panoptic._replace(ids=nearest(panoptic.ids, size))
    if instances is not None:
        instances = instances._replace(masks=nearest(instances.masks, size))
    return answer._replace(
        panoptic=panoptic, instances=instances, semantic=None if semantic is None else nearest(semantic, size)
    )


def nearest(maps: Tensor, size: Size) -> Tensor:
    """Maps (..., h, w) to (..., H, W)."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    rows, columns = (
        (2 * torch.arange(new, device=maps.device) + 1) * old // (2 * new)
        for old, new in zip(maps.shape[-2:], size, strict=True)
    )
    return maps.index_select(-2, rows).index_select(-1, columns)
