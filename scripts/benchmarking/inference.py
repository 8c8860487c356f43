"""Inference: the forward pass and post-processing, at every exit, with a gate, and by `transformers`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scripts.benchmarking.models import (
    PROSCALE,
    SCHEDULES,
    Theirs,
    build,
    depth_of,
    found,
    made_images,
    scatter,
    share,
)
from scripts.benchmarking.plan import OURS, POST, THEIRS, Plan, Row
from src.metrics.cost import Cost
from src.models.postprocess import Frame
from src.system.stopwatch import Stopwatch, take_turns

GATED, UNGATED = "gate", "mask2former, gate's images"
GATED_IMAGES = 4  # at least: one image has one exit
PARTS = ("backbone", "encoder", "rest of pixel decoder", "decoder")
REST = "decoder"  # all that follows the pixel decoder
WHOLE = "network"  # the only part of a compiled model, which the clock must not cut
EQUAL = 0.999  # least share of mask signs


class Contestant(NamedTuple):
    """A way to predict."""

    images: Tensor  # (B, 3, H, W), preprocessed
    predict: Callable[[Tensor], Any]
    finish: Callable[[Any], Any]  # from what `predict` returns to panoptic segments of all images
    costs: list[Cost]  # of the images
    exits: list[int]
    reference: str


class Equality(NamedTuple):
    """How far our outputs are from those of `transformers` for the same images and weights."""

    class_error: float  # largest difference of class logits
    largest_class_logit: float
    mask_error: float
    mask_signs: float  # share of equal signs

    def __str__(self) -> str:
        return (
            f"{self.mask_signs:.4%} of the signs of mask logits are equal; the largest difference is "
            f"{self.mask_error:.1e} of mask logits, and {self.class_error:.1e} of class logits (at most "
            f"{self.largest_class_logit:.2g})"
        )

    @property
    def holds(self) -> bool:
        return self.mask_signs >= EQUAL


def names_of(depth: int) -> list[str]:
    """Return all contestants of a model with so many encoder layers."""
    return [THEIRS, OURS, *SCHEDULES, *(f"exit{exit_}" for exit_ in range(depth - 1, 0, -1)), GATED]


def overrides_of(name: str, depth: int) -> list[str]:
    """Return the settings of a contestant's model; that with a gate has every exit, and stands for all exits."""
    if name in SCHEDULES:
        return [f"schedule={SCHEDULES[name]}", "exits=null", *PROSCALE]
    return [f"schedule=[0,0,{depth}]", f"exits={list(range(1, depth + 1))}", "model/gate=linear"]


class Models:
    """The models behind the contestants, with the same weights where shapes agree.

    Args:
        names: contestants that are wanted.
    """

    def __init__(self, plan: Plan, names: Sequence[str], stopwatch: Stopwatch):
        self.plan, self.names = plan, names
        self.depth = depth_of(plan.settings)
        self.ours = self.prepared(build([*plan.settings, *overrides_of(GATED, self.depth)], plan.classes))
        self.proscale = {}
        for name in [name for name in SCHEDULES if name in names]:
            own = overrides_of(name, self.depth)
            self.proscale[name] = self.prepared(build([*plan.settings, *own], plan.classes))
            share(self.ours.model, self.proscale[name].model)
        self.theirs = Theirs(self.ours.model) if THEIRS in names else None
        for task in (self.ours, *self.proscale.values()):
            self.watch(stopwatch, task.model, task.model.backbone, task.model.pixel_decoder)
        if self.theirs is not None:
            model = self.theirs.model.eval().to(plan.device)
            self.watch(stopwatch, model, *model.model.pixel_level_module.children())

    def images(self, size: Sequence[int], number: int = 1) -> Tensor:
        """Return a preprocessed batch (B, 3, H, W), of at least so many images."""
        photos = made_images(max(self.plan.batch, number), size, self.plan.device)
        return self.ours.model.preprocess(photos)

    def prepared(self, task: Any) -> Any:
        """Return a task as prediction uses it."""
        return task.eval().to(self.plan.device)

    def watch(self, stopwatch: Stopwatch, model: Any, backbone: Any, pixel_decoder: Any) -> None:
        """Let the stopwatch see the parts of a model, or compile it as a whole."""
        if self.plan.compile:
            model.compile()
            return
        for part, module in zip(PARTS, (backbone, pixel_decoder.encoder, pixel_decoder), strict=False):
            for method in ("forward", "leave"):
                if hasattr(module, method):
                    stopwatch.watch(module, method, part)

    def contestants(self, size: Sequence[int]) -> dict[str, Contestant]:
        """Return the contestants for images of a size."""
        images = self.images(size)
        frame = Frame(images.shape[-2:], size, size)
        made: dict[str, Contestant] = {}
        if self.theirs is not None:
            made[THEIRS] = self.their_contestant(self.theirs, images, frame)
        made[OURS] = contestant(self.ours, images, frame, self.depth)
        for name, task in self.proscale.items():
            made[name] = contestant(task, images, frame, task.model.exits[-1])
        for depth in range(self.depth - 1, 0, -1):
            made[f"exit{depth}"] = contestant(self.ours, images, frame, depth)
        if GATED in self.names:
            many = self.images(size, GATED_IMAGES)
            made[UNGATED] = contestant(self.ours, many, frame, self.depth)._replace(reference=UNGATED)
            made[GATED] = gated(self.ours, many, frame)
        return {name: one for name, one in made.items() if name in self.names or name == UNGATED}

    def their_contestant(self, theirs: Theirs, images: Tensor, frame: Frame) -> Contestant:
        """Return the model of `transformers`, whose multiply-adds are those of ours."""
        ours = contestant(self.ours, images, frame, self.depth)
        stuff = {i for i, category in enumerate(self.ours.categories) if not category.isthing}
        classes = class_logits(self.ours, len(images))

        def finish(output: Any) -> Any:
            output.class_queries_logits = classes
            return theirs.processor.post_process_panoptic_segmentation(
                output,
                threshold=self.ours.evaluation.postprocess.object_threshold,
                label_ids_to_fuse=stuff,
                target_sizes=[tuple(frame.original)] * len(images),
            )

        return ours._replace(predict=lambda images: theirs.model(pixel_values=images), finish=finish)


def contestant(task: Any, images: Tensor, frame: Frame, depth: int) -> Contestant:
    """Return our model at an exit."""
    predict = task.ways()[f"exit{depth}"]
    cost = cost_of(task, frame, depth)._replace(gate=0.0)
    return Contestant(
        images,
        lambda images: predict(images)[depth][-1],
        partial(finished, task, frame, class_logits(task, len(images))),
        [cost] * len(images),
        [depth] * len(images),
        OURS,
    )


@torch.no_grad()
def gated(task: Any, images: Tensor, frame: Frame) -> Contestant:
    """Return our model with a gate."""
    exits = scatter(task.model, images)
    plain = contestant(task, images, frame, task.model.exits[-1])
    return plain._replace(
        predict=lambda images: task.model.leave(images)[0],
        costs=[cost_of(task, frame, depth) for depth in exits],
        exits=exits,
        reference=UNGATED,
    )


def cost_of(task: Any, frame: Frame, depth: int) -> Cost:
    """Return the cost of an image."""
    return task.cost_of.parts(frame.resized, frame.original[0] * frame.original[1])[depth]


def class_logits(task: Any, number: int) -> Tensor:
    """Return the class logits that post-processing gets for a batch of images."""
    decoder = task.model.decoder
    return found(number, decoder.query_feat.num_embeddings, len(task.categories), decoder.query_feat.weight.device)


def finished(task: Any, frame: Frame, classes: Tensor, prediction: Any) -> list[Any]:
    """Return the panoptic segments of every image of a batch."""
    panoptic = task.evaluation.postprocess.panoptic
    return [panoptic(prediction._replace(class_logits=classes), image, frame) for image in range(len(classes))]


@torch.no_grad()
def compare(contestants: dict[str, Contestant]) -> Equality | None:
    """Compare our outputs with those of `transformers`, in full precision."""
    if not {THEIRS, OURS} <= contestants.keys():
        return None
    with torch.backends.cudnn.flags(allow_tf32=False):
        theirs = contestants[THEIRS].predict(contestants[THEIRS].images)
        ours = contestants[OURS].predict(contestants[OURS].images)
    classes, masks = theirs.class_queries_logits, theirs.masks_queries_logits
    return Equality(
        (ours.class_logits - classes).abs().max().item(),
        classes.abs().max().item(),
        (ours.mask_logits - masks).abs().max().item(),
        ((ours.mask_logits > 0) == (masks > 0)).float().mean().item(),
    )


@torch.no_grad()
def measure(plan: Plan, models: Models, size: Sequence[int], stopwatch: Stopwatch) -> tuple[list[Row], Equality | None]:
    """Return a row for each contestant, and how far ours is from `transformers`."""
    contestants = models.contestants(size)
    equality = compare(contestants)

    def call(one: Contestant) -> None:
        with plan.autocast():
            with stopwatch.part(WHOLE if plan.compile else REST):
                output = one.predict(one.images)
            with stopwatch.part(POST):
                one.finish(output)

    title = f"inference at {size[0]}x{size[1]}"
    calls = {name: partial(call, one) for name, one in contestants.items()}
    seconds = take_turns(calls, stopwatch, plan.rounds, plan.warm_up, title)
    rows = [
        Row(
            name,
            len(one.images),
            one.reference if one.reference in contestants else next(iter(contestants)),
            by_part(one.costs),
            seconds[name],
            one.exits,
        )
        for name, one in contestants.items()
    ]
    return rows, equality


def by_part(costs: Sequence[Cost]) -> dict[str, float]:
    """Return the mean GMAC of images by the parts that are timed."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    return {
        "backbone": mean([cost.backbone for cost in costs]),
        "encoder": mean([cost.encoder_layers for cost in costs]),
        "rest of pixel decoder": mean([c.pixel_decoder - c.encoder_layers + c.upsampling + c.gate for c in costs]),
        "decoder": mean([cost.decoder for cost in costs]),
        POST: mean([cost.postprocessing for cost in costs]),
    }
