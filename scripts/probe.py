"""Show where in a model the classes of an image can still be told apart: a linear probe of each part's output.

python -m scripts.probe runs/NAME/TIME/checkpoints/best.ckpt data.root=FOLDER
python -m scripts.probe SOURCE +experiment=mask2former_coco 'exits=[2,4,6]' data.root=FOLDER --csv probe.csv

From the means of a part's channels over an image, ridge regression learns which classes the image contains. It is
fitted to training images and scored on validation images, by the area under the ROC curve of each class in percent: 50
is chance. An encoder whose output scores less than its input has lost what the classes are told apart by.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from scripts.tables import of_rows
from src.config.build import data_of
from src.config.errors import MISTAKES, reason
from src.predictor import Predictor, settings_of
from src.records.csv_file import write_csv

RIDGE = 30.0  # strength, for channels of mean 0 and deviation 1
FEWEST = 5  # images with a class, and without it, in both splits: fewer say nothing about it

Parts = dict[str, Tensor]  # by name: means of the channels, (C,) of an image, (N, C) of several


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a checkpoint, or published weights")
    parser.add_argument("settings", nargs="*", help="as of src.predict, beside those of the checkpoint")
    parser.add_argument("--train", type=int, default=800, help="training images at most (default: %(default)s)")
    parser.add_argument("--val", type=int, default=400, help="validation images at most (default: %(default)s)")
    parser.add_argument("--csv", type=Path, help="keep the table in this file, with the scores of each class")
    args = parser.parse_args(arguments)
    if min(args.train, args.val) < 1:
        parser.error(f"--train {args.train} --val {args.val}: expected 1 or more of each")
    try:
        rows = probed(args.weights, args.settings, args.train, args.val)
        if args.csv:
            write_csv(rows, args.csv)
    except MISTAKES as error:
        sys.exit(f"error: {reason(error)}")
    print(of_rows(rows))


def probed(weights: str, settings: Sequence[str], num_train: int, num_val: int) -> list[dict[str, Any]]:
    """Return a row for each part of the model. Raises ValueError if no class is there to tell apart."""
    cfg = settings_of(weights, *settings)
    predictor, data = Predictor(cfg), data_of(cfg)
    parts, classes = described(predictor, data, data.train_scenes, num_train, "training images")
    held_out, truth = described(predictor, data, data.val_scenes, num_val, "validation images")
    rare = torch.stack([torch.minimum(each.sum(0), (1 - each).sum(0)) for each in (classes, truth)]).amin(0)  # (K,)
    found = (rare >= FEWEST).nonzero().flatten().tolist()
    if not found:
        raise ValueError(
            f"--train {num_train} --val {num_val}: no class is in {FEWEST} or more of these images and absent from "
            f"{FEWEST} or more, in both splits"
        )
    rows = []
    for part, channels in parts.items():
        scores = ridge(channels, classes, held_out[part])
        areas = {
            predictor.categories[c].name: 100 * binary_auroc(scores[:, c], truth[:, c].int()).item() for c in found
        }
        rows.append({"part": part, "channels": channels.shape[1], "mean": statistics.mean(areas.values()), **areas})
    return rows


def described(predictor: Predictor, data: Any, scenes: Any, most: int, title: str) -> tuple[Parts, Tensor]:
    """Return the parts (N, C) of images spread over the scenes, and which of the K classes each contains, (N, K)."""
    chosen = np.unique(np.linspace(0, len(scenes) - 1, min(most, len(scenes))).round().astype(int)).tolist()
    parts, classes = [], torch.zeros(len(chosen), len(predictor.categories))
    for row, index in enumerate(track(chosen, title, console=Console(stderr=True), transient=True)):
        sample = data.resize(scenes[index], np.random.default_rng(0))
        parts.append(parts_of(predictor, sample.image))
        classes[row, sample.truth.labels] = 1
    return {name: torch.stack([one[name] for one in parts]) for name in parts[0]}, classes


@torch.no_grad()
def parts_of(predictor: Predictor, image: Tensor) -> Parts:
    """Return the means of each part's channels over an image (3, h, w): backbone, projections, encoder at each exit."""
    model = predictor.task.model
    neck, device = model.pixel_decoder, predictor.fabric.device
    features = model.backbone(model.preprocess([image.to(device)]))
    projected = neck.project(features)
    encoded = neck.encoder(projected.levels, projected.pos, model.exits)
    maps = {f"backbone, stride {stride}": feature for stride, feature in sorted(features.items(), reverse=True)}
    maps |= {f"projection, stride {stride}": level for stride, level in neck.by_stride(projected.levels).items()}
    for depth, levels in encoded.items():
        maps |= {f"exit {depth}, stride {stride}": level for stride, level in neck.by_stride(levels).items()}
    return {name: value.float().mean((0, 2, 3)).cpu() for name, value in maps.items()}


def ridge(seen: Tensor, classes: Tensor, new: Tensor) -> Tensor:
    """Fit (N, C) to (N, K) by ridge regression, the channels normalised; return the scores (M, K) of new (M, C)."""
    mean, deviation = seen.mean(0), seen.std(0, correction=0).clamp(min=1e-6)
    x, y = (seen - mean) / deviation, classes - classes.mean(0)
    weights = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1]), x.T @ y)
    return (new - mean) / deviation @ weights


if __name__ == "__main__":
    main()
