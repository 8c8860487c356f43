"""Prediction of images, each at the exit that a gate, a budget or the user chooses."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.metrics.budget import Times, budget_of
from src.metrics.cost import ImageCost, Size
from src.models.gate import Seen
from src.models.merging import View, alone, merge_views
from src.tasks.batches import like_sized
from src.tasks.evaluation import ImagePrediction
from src.tasks.gate_checkpoint import expect_one
from src.tasks.gated_evaluation import GatedEvaluation


class PredictionTask(GatedEvaluation):
    """Predicts images of any size; several views of an image give one prediction (see `merge_views`).

    Args:
        resize: resizes an image (3, H, W) for the model, and computes the new size of an image.
        exit: the exit of every image; null: the gate or the budget chooses it, without either it is the deepest exit.
        gate, beta: as `GatedEvaluation`.
        budget_gflops, budget_ms: with a gate, the mean cost; without one, the largest cost of an image, which leaves
            at the deepest exit within it.
        budget_per_image, latency: as `GatedEvaluation`.
        scales: of the views, relative to `resize`; the gate sees the first one.
        mirror: add a mirrored view at every scale.
        max_pixels: of a prediction, to save memory; `whole` enlarges it to the size of its image.
        others: as `EvaluationTask`.
    """

    def __init__(
        self,
        *,
        resize: Any,
        exit: int | None = None,
        gate: str | None = None,
        budget_gflops: float | None = None,
        budget_ms: float | None = None,
        budget_per_image: bool = False,
        latency: Times | None = None,
        scales: Sequence[float] = (1.0,),
        mirror: bool = False,
        max_pixels: int = 4_000_000,
        **others: Any,
    ):
        expect_one(exit=exit, gate=gate)
        expect_one(exit=exit, budget_gflops=budget_gflops, budget_ms=budget_ms)
        budget = budget_of(budget_gflops, budget_ms, budget_per_image, latency)
        if gate is not None:  # which keeps to the budget
            others |= {"budget_gflops": budget_gflops, "budget_ms": budget_ms, "budget_per_image": budget_per_image}
        super().__init__(gate=gate, latency=latency, **others)
        if exit not in (None, *self.model.exits):
            raise ValueError(f"exit={exit}: the model has the exits {self.model.exits}, expected one of them")
        if not self.evaluation.of_masks and len(scales) * (1 + mirror) > 1:
            raise ValueError(
                f"scales={list(scales)} mirror={str(mirror).lower()}: several views are merged by their masks, and "
                f"segmentation={self.segmentation} has none; expected one scale and mirror=false"
            )
        self.exit = self.model.exits[-1] if exit is None else exit
        self.budget = budget
        self.resizes = [resize.scaled(scale) for scale in scales]
        self.mirror, self.max_pixels = mirror, max_pixels
        counted = [self.exit] if self.budget is None and not self.gated else self.model.exits
        self.cost_of = ImageCost(self.model, counted, self.segmentation)

    def padded(self, size: Size) -> Size:
        """Return the padded (height, width) of an image; images that share it can form a batch."""
        return self.model.padded(self.resizes[0].resized(*size))

    @torch.no_grad()
    def segment(self, images: Sequence[Tensor]) -> list[ImagePrediction]:
        """Predict images (3, H, W) uint8 RGB on the CPU, each independently of the others.

        Predictions of images with more than `max_pixels` are smaller than the image. Raises ValueError for a budget
        below the cost of the shallowest exit.
        """
        requests = [self.request(image.shape[-2:]) for image in images]
        exits = None if self.gated else [self.within(request.spent) for request in requests]
        spent = [request.spent for request in requests]
        views: list[list[list[View]]] = [[] for _ in images]  # by image and scale: as it is, and mirrored
        for resize in self.resizes:
            resized = [resize.image(image) for image in images]
            plain, exits = self.look(resized, False, exits, spent)  # without exits, the first view's gate chooses them
            for of_image, view in zip(views, plain, strict=True):
                of_image.append([view])
            if self.mirror:
                mirrored, _ = self.look([image.flip(-1) for image in resized], True, exits, spent)
                for of_image, view in zip(views, mirrored, strict=True):
                    of_image[-1].append(view)
        return [self.merge(*parts) for parts in zip(requests, views, exits or [], strict=True)]

    def request(self, size: Size) -> "Request":
        """Return the sizes and costs of an image of a size."""
        frame = bounded(size, self.max_pixels) if self.evaluation.of_masks else size
        return Request(size, frame, *self.costs(size, prod(frame)))

    def look(
        self, images: list[Tensor], mirrored: bool, exits: list[int] | None, spent: list[list[float]]
    ) -> tuple[list[View], list[int]]:
        """Return one view of each image (3, h, w) and its exit: the given one, or else the gate's choice.

        Args:
            spent: of each image at each exit, see `Request`.
        """
        seen: dict[int, tuple[View, int]] = {}
        for places in like_sized(images, self.model.padded):
            batch = self.model.preprocess([images[place].to(self.device) for place in places])
            if exits is None:
                prediction, left = self.leave(batch, [spent[place] for place in places])
            else:
                prediction, left = self.model.leave(batch, chooser([exits[place] for place in places]))
            for row, (place, depth) in enumerate(zip(places, left, strict=True)):
                view = View(alone(prediction, row), batch.shape[-2:], images[place].shape[-2:], mirrored)
                seen[place] = view, depth
        in_order = [seen[place] for place in range(len(images))]
        return [view for view, _ in in_order], [depth for _, depth in in_order]

    def merge(self, request: "Request", views: list[list[View]], depth: int) -> ImagePrediction:
        """Return the prediction of one image from its views."""
        prediction, frame = merge_views(views, request.frame)
        height, width = request.size
        cost = request.costs[self.cost_of.exits.index(depth)]
        answer = self.evaluation.answer(prediction, 0, frame)
        return self.timed(answer._replace(exit=depth, gflops=cost, size=(height, width)))

    def whole(self, answer: ImagePrediction) -> ImagePrediction:
        """Enlarge a prediction to the size of its image."""
        assert answer.size is not None
        return enlarged(answer, answer.size)

    def costs(self, size: Size, pixels: int) -> tuple[list[float], list[float]]:
        """Return what all views of an image cost at every possible exit, predicted with `pixels` pixels.

        First in GFLOPs, then in the unit of the budget, in which each view counts by itself.
        """
        views = [self.cost_of(resize.resized(*size), pixels) for resize in self.resizes]
        return self.summed(views), self.summed(self.spent(views))

    def summed(self, views: Sequence[Sequence[float]]) -> list[float]:
        """Return the sum over the scales of what one view costs at each exit; mirrored views cost the same again."""
        return [(1 + self.mirror) * sum(exits) for exits in zip(*views, strict=True)]

    def within(self, spent: list[float]) -> int:
        """Return the deepest exit within the budget; without a budget, the exit of the settings."""
        if self.budget is None:
            return self.exit
        allowed = self.budget.affords(spent, self.model.exits)
        return [depth for depth, may in zip(self.model.exits, allowed, strict=True) if may][-1]


class Request(NamedTuple):
    """One image to predict."""

    size: Size  # (height, width) of the image
    frame: Size  # of its maps
    costs: list[float]  # GFLOPs of all its views, by exit
    spent: list[float]  # the same in the unit of the budget


def chooser(exits: list[int]) -> Callable[[Seen], list[int]]:
    """Return what `Model.leave` asks for exits: these."""
    return lambda seen: exits


def bounded(size: Size, max_pixels: int) -> Size:
    """Return a (height, width), reduced in proportion to at most `max_pixels`."""
    scale = min((max_pixels / prod(size)) ** 0.5, 1)
    return [max(int(side * scale), 1) for side in size] if scale < 1 else list(size)


def enlarged(answer: ImagePrediction, size: Size) -> ImagePrediction:
    """Resize the maps of a prediction to (H, W) by nearest neighbour."""
    panoptic, instances, semantic = answer.panoptic, answer.instances, answer.semantic
    if panoptic is not None:
        panoptic = panoptic._replace(ids=nearest(panoptic.ids, size))
    if instances is not None:
        instances = instances._replace(masks=nearest(instances.masks, size))
    return answer._replace(
        panoptic=panoptic, instances=instances, semantic=None if semantic is None else nearest(semantic, size)
    )


def nearest(maps: Tensor, size: Size) -> Tensor:
    """Resize maps (..., h, w) to (..., H, W) by nearest neighbour."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    rows, columns = (
        (2 * torch.arange(new, device=maps.device) + 1) * old // (2 * new)
        for old, new in zip(maps.shape[-2:], size, strict=True)
    )
    return maps.index_select(-2, rows).index_select(-1, columns)
