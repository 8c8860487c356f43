"""Shares of a validation's time: the network, post-processing, each metric and data loading.

python -m scripts.benchmark_evaluation data=coco_panoptic data.root=FOLDER

Random weights predict junk, so predictions are made from the truth with noise, unless --junk is given: as those of a
trained model, about twenty of 100 queries are sure of a segment, and the others see nothing. Times are of one thread if
OMP_NUM_THREADS=1.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from src.config.build import build_run
from src.config.command_line import configure
from src.data.scenes import View
from src.data.targets import Truth, collate
from src.models.transformer_decoder import Prediction

OVERRIDES = [
    "paths.run=.",
    "callbacks=[]",
    "~logger",
    "model.backbone.pretrained=false",
    "dim=64",
    "data.resize.short=512",
    "data.resize.long=853",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings of a model and its data")
    parser.add_argument("--images", type=int, default=100, help="images that are validated (default: 100)")
    parser.add_argument("--junk", action="store_true", help="score what the random weights predict")
    arguments = parser.parse_args()

    task, data, _ = cast(Any, build_run(configure([*OVERRIDES, *arguments.overrides])))
    task.eval()
    clock = Clock()
    watch(task, clock)
    view = View(data.val_scenes, data.resize, seed=0)
    with torch.no_grad():
        validate(task, view, 2, arguments.junk, clock)
        clock.seconds.clear()
        started = time.perf_counter()
        scores = validate(task, view, arguments.images, arguments.junk, clock)
        clock.seconds["rest"] = time.perf_counter() - started - sum(clock.seconds.values())
    print({name: round(value, 4) for name, value in scores.items()})
    del clock.seconds["made predictions"]
    whole, network = sum(clock.seconds.values()), clock.seconds["network"]
    print(f"{'all outside of it':24}{1 - network / whole:7.1%}{whole / network - 1:7.2f} of the network")
    for name, seconds in sorted(clock.seconds.items(), key=lambda part: -part[1]):
        print(f"{name:24}{seconds / whole:7.1%}{seconds / network:7.2f} of the network")


def validate(task: Any, view: Any, count: int, junk: bool, clock: "Clock") -> dict[str, float]:
    """Validate the first images one by one; the scores of the deepest exit."""
    for index in range(min(count, len(view))):
        with clock("data loading"):
            batch = collate([view[index]])
        with clock("made predictions"):
            made = None if junk else from_truth(batch.truths[0], batch.images[0].shape[-2:], task, index)
        task.made = made
        task.validation_step(batch, index)
    *_, evaluation = task.evaluations.values()
    scores = evaluation.compute()
    for evaluation in task.evaluations.values():
        evaluation.by_class()
        evaluation.reset()
    return scores


def from_truth(truth: Truth, size: Any, task: Any, seed: int) -> Prediction:
    """Predictions of an image (h, w) made from its truth: a query for each segment, some twice, others see nothing."""
    chance = torch.Generator().manual_seed(seed)
    num_queries, num_classes = task.model.decoder.query_feat.num_embeddings, len(task.categories)
    padded = task.model.padded(size)
    masks = truth.masks().float()[None]
    masks = F.interpolate(masks, [side // 4 for side in size], mode="area")[0][:num_queries]
    masks = F.pad(masks, (0, padded[1] // 4 - masks.shape[2], 0, padded[0] // 4 - masks.shape[1]))  # (N, h, w)
    owner = torch.randint(len(masks), (num_queries,), generator=chance)  # of the queries left over
    owner[: len(masks)] = torch.arange(len(masks))
    logits = torch.randn(num_queries, *masks.shape[1:], generator=chance) + 16 * masks[owner] - 8
    classes = 1.5 * torch.randn(num_queries, num_classes + 1, generator=chance)
    sure = max(len(masks), min(20, num_queries))  # some of them predict a segment twice
    classes[torch.arange(sure), truth.labels[owner[:sure]]] += 10 - 2 * torch.rand(sure, generator=chance)
    classes[sure:, -1] += 7  # no object
    return Prediction(classes[None], logits[None])


class Clock:
    """Seconds by name; inner ones are not counted in outer ones."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started, before = time.perf_counter(), sum(self.seconds.values())
        yield
        self.seconds[name] += time.perf_counter() - started - (sum(self.seconds.values()) - before)

    def timed(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self(name):
                return call(*args, **kwargs)

        return run


def watch(task: Any, clock: Clock) -> None:
    """Count the parts of validation."""
    rows = task.rows

    def with_made(images: Tensor) -> Any:
        with clock("network"):
            found = rows(images)
        made = task.made
        return found if made is None else {name: (made, depths) for name, (_, depths) in found.items()}

    task.rows = with_made
    task.model.preprocess = clock.timed(task.model.preprocess, "network")
    task.cost = clock.timed(task.cost, "cost")
    for evaluation in task.evaluations.values():
        for kind in ("panoptic", "instances", "semantic"):
            setattr(evaluation.postprocess, kind, clock.timed(getattr(evaluation.postprocess, kind), f"post {kind}"))
        evaluation.answer = clock.timed(evaluation.answer, "post")
        evaluation.update = clock.timed(evaluation.update, "update, rest")
        for name, metric in evaluation.metrics.items():
            metric.update = clock.timed(metric.update, f"{name} update")
            metric.compute = clock.timed(metric.compute, f"{name} compute")
            metric.by_class = clock.timed(metric.by_class, f"{name} by class")


if __name__ == "__main__":
    main()
