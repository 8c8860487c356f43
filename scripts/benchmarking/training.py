"""A training step: forward, matching, losses, backward, clipping, optimiser; by ours and by `transformers`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scripts.benchmarking.inference import WHOLE, by_part, cost_of
from scripts.benchmarking.models import PROSCALE, SCHEDULES, Theirs, build, depth_of, made_images
from scripts.benchmarking.plan import OURS, POST, THEIRS, Plan, Row
from src.data.targets import Batch, Truth, collate
from src.data.targets import Sample as LabelledImage
from src.models.postprocess import Frame
from src.system.stopwatch import Stopwatch, take_turns

ALL_EXITS = "all_exits"
SCALED = "proscale333"
NAMES = (THEIRS, OURS, SCALED, ALL_EXITS)
IMAGES, SEGMENTS = 2, 20
CLIP = 0.01  # Mask2Former's
LR = 1e-7  # so that weights stay what they are
FORWARD = ("backbone", "encoder", "rest of pixel decoder", "decoder")
NOTE = "Times are of the whole step, and GMAC those of its forward pass without matching and losses."
OTHER = "other"  # preparation of images and segments


class Step(NamedTuple):
    """A model and its loss."""

    model: nn.Module
    loss: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer
    gmac: dict[str, float]  # of the forward pass of an image


def made_batch(side: int, num_classes: int, device: torch.device) -> Batch:
    """Return square images with random segments that fill them: the pixels nearest to random points."""
    generator = torch.Generator().manual_seed(2)
    pixels = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()  # (H * W, 2)
    samples = []
    for place, image in enumerate(made_images(IMAGES, (side, side), torch.device("cpu"))):
        points = side * torch.rand(SEGMENTS, 2, generator=generator)
        segments = torch.cdist(pixels, points).argmin(1).view(1, side, side).int() + 1
        labels = torch.randint(num_classes, (SEGMENTS,), generator=generator)
        areas = segments.flatten().bincount(minlength=SEGMENTS + 1)[1:].float()
        truth = Truth(segments.to(device), labels.to(device), torch.zeros(SEGMENTS, dtype=torch.bool), areas)
        samples.append(LabelledImage(image.to(device), truth, place, str(place)))
    return collate(samples)


def make_step(plan: Plan, name: str, side: int, stopwatch: Stopwatch, alone: bool = False) -> Step:
    """Return the training step of a contestant. Raises as `Theirs` does.

    Args:
        alone: for measuring memory, no weights of ours are made beside those of `transformers`.
    """
    depth = depth_of(plan.settings)
    own = {
        SCALED: [f"schedule={SCHEDULES[SCALED]}", *PROSCALE],
        ALL_EXITS: [f"schedule=[0,0,{depth}]", f"exits={list(range(2, depth + 1)) or [depth]}"],
    }.get(name, [f"schedule=[0,0,{depth}]"])
    exits = [] if name == ALL_EXITS else ["exits=null"]
    overrides = [*plan.settings, *own, *exits, "task.exits_per_step=all", f"lr={LR}"]
    with torch.device("meta" if alone and name == THEIRS else "cpu"):
        task = build(overrides, plan.classes)
    batch = made_batch(side, len(task.categories), plan.device)
    if name == THEIRS:
        return their_step(plan, task, batch, stopwatch, shared=not alone)
    task.train().to(plan.device)
    model = task.model
    watch(plan, stopwatch, model, [model.backbone, model.pixel_decoder.encoder, model.pixel_decoder, model.decoder])
    if not plan.compile:
        stopwatch.watch(task.criterion, "forward", "losses")
        task.criterion.matcher = timed(stopwatch, task.criterion.matcher)
    gmac = {} if name == ALL_EXITS else forward_cost(task, side)
    return Step(model, lambda: task.loss(batch, 0)[0], task.make_optimizer(model), gmac)


def their_step(plan: Plan, task: Any, batch: Batch, stopwatch: Stopwatch, shared: bool) -> Step:
    """Return the training step of `transformers` with the weights and the data of ours."""
    model = Theirs(task.model, shared).model.train().to(plan.device)
    masks = [truth.masks().float() for truth in batch.truths]
    labels = [truth.labels for truth in batch.truths]
    images = torch.stack(batch.images) / 128.0 - 1
    level = model.model.pixel_level_module
    watch(plan, stopwatch, model, [level.encoder, level.decoder.encoder, level.decoder, model.model.transformer_module])
    if not plan.compile:
        stopwatch.watch(model.criterion, "forward", "losses")
        stopwatch.watch(model.criterion.matcher, "forward", "matching")

    def loss() -> Tensor:
        return model(pixel_values=images, mask_labels=masks, class_labels=labels).loss.squeeze()

    return Step(model, loss, task.make_optimizer(model), forward_cost(task, batch.images[0].shape[-1]))


def watch(plan: Plan, stopwatch: Stopwatch, model: Any, parts: Sequence[Any]) -> None:
    """Let the stopwatch see the parts of a model, or compile it as a whole."""
    if plan.compile:
        model.compile()
        return
    for part, module in zip(FORWARD, parts, strict=True):
        stopwatch.watch(module, "forward", part)


def timed(stopwatch: Stopwatch, matcher: Callable[..., Any]) -> Callable[..., Any]:
    """Return a matcher whose calls the stopwatch sees."""

    def match(*args: Any) -> Any:
        with stopwatch.part("matching"):
            return matcher(*args)

    return match


def forward_cost(task: Any, side: int) -> dict[str, float]:
    """Return the GMAC of the forward pass of a square image by part."""
    size = (side, side)
    costs = by_part([cost_of(task, Frame(size, size, size), task.model.exits[-1])])
    return {part: cost for part, cost in costs.items() if part != POST}


def take_step(plan: Plan, stopwatch: Stopwatch, step: Step) -> None:
    """Train one step."""
    with stopwatch.part(WHOLE if plan.compile else OTHER), plan.autocast():
        loss = step.loss()
    with stopwatch.part("backward"):
        loss.backward()
    with stopwatch.part("optimiser"):
        nn.utils.clip_grad_norm_(step.model.parameters(), CLIP)
        step.optimizer.step()
        step.optimizer.zero_grad()


def measure(plan: Plan, names: Sequence[str], side: int, stopwatch: Stopwatch) -> list[Row]:
    """Return a row for each contestant."""
    steps = {name: make_step(plan, name, side, stopwatch) for name in names}
    calls = {name: partial(take_step, plan, stopwatch, step) for name, step in steps.items()}
    seconds = take_turns(calls, stopwatch, plan.rounds, plan.warm_up, f"training at {side}x{side}")
    reference = OURS if OURS in steps else names[0]
    return [Row(name, IMAGES, reference, step.gmac, seconds[name]) for name, step in steps.items()]
