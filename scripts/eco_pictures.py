"""Draw the trade-off as a curve, and the images that leave first and last."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from scripts.demo import load
from scripts.eco_table import Row, gated_models, grouped
from src.exit_table.table import ExitTable
from src.painting import paint, photo_of, predicted_layer, side_by_side, true_segments
from src.system.atomic import atomic_write

SHOWN = 3  # images that leave first, and as many that leave last
LINES = {  # choice: label, style
    "oracle": ("oracle", "C2^--"),
    "gate quality": ("gate, one for all betas", "C0o-"),
    "gate exit": ("gate, one for each beta", "C1s-"),
}


def draw_curve(rows: Sequence[Row], file: Path) -> None:
    """Draw quality against multiply-adds, means over seeds: all models, then a panel for each model with gates."""
    models = list(dict.fromkeys(row.model for row in rows))
    gated = gated_models(rows)
    figure = Figure(figsize=(5 * (1 + len(gated)), 4.6), layout="constrained")
    whole, *panels = figure.subplots(1, 1 + len(gated))
    for place, model in enumerate(models):
        draw_fixed(whole, rows, model, f"C{3 + place}", model)
    whole.set_title("fixed exits of all models")
    for model, axes in zip(gated, panels, strict=True):
        for choice, (label, style) in LINES.items():
            axes.plot(*points(rows, model, choice), style, label=label, markersize=5)
        axes.plot(*points(rows, model, "gate quality", "chance"), "C7x:", label="random exits, same histogram")
        draw_fixed(axes, rows, model, f"C{3 + models.index(model)}", "fixed exits")
        axes.set_title(model)
    for axes in (whole, *panels):
        axes.set(xlabel="GFLOPs of an image (multiply-adds, mean)", ylabel="PQ of an image (mean), %")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with atomic_write(file) as part:
        figure.savefig(part, dpi=110)


def draw_fixed(axes: Any, rows: Sequence[Row], model: str, color: str, label: str) -> None:
    """Draw the exits of a model as a line, each with its depth."""
    exits = list(dict.fromkeys(row.choice for row in rows if row.model == model and row.is_fixed))
    places = [points(rows, model, choice) for choice in exits]
    xs, ys = [x[0] for x, _ in places], [y[0] for _, y in places]
    axes.plot(xs, ys, "D-", color=color, label=label, markersize=5)
    for x, y, choice in zip(xs, ys, exits, strict=True):
        axes.annotate(choice.split()[-1], (x, y), (0, -12), textcoords="offset points", ha="center", fontsize=8)


def points(rows: Sequence[Row], model: str, choice: str, score: str = "quality") -> tuple[list[float], list[float]]:
    """Return GFLOPs and percent of a policy at every beta, means over seeds."""
    kept = [row for row in rows if (row.model, row.choice) == (model, choice)]
    groups = grouped(kept, lambda row: row.beta).values()
    costs = [statistics.mean(row.gflops for row in seeds) for seeds in groups]
    return costs, [100 * statistics.mean(getattr(row, score) for row in seeds) for seeds in groups]


@torch.no_grad()
def draw_leavers(model: Path, table: ExitTable, scores: Tensor, file: Path) -> None:
    """Draw the scenes for which a gate predicts the least and the most gain of depth, from its qualities (N, E)."""
    exits, gain = table.info.exits, 100 * (scores[:, -1] - scores[:, 0])
    order = gain.argsort().tolist()
    task, data, _ = load(model, f"data.val.num_scenes={table.info.num_images}")
    rows = []
    for when, places in (("first", order[:SHOWN]), ("last", order[-SHOWN:])):
        for place in places:
            quality = {depth: 100 * float(score) for depth, score in zip(exits, table.quality[place], strict=True)}
            title = f"leaves {when}: {gain[place]:+.1f} points expected of depth"
            rows.append(draw_row(task, data.val_scenes[int(table.image_ids[place])], quality, title))
    sheet = Image.new("RGB", (rows[0].width, len(rows) * rows[0].height), "white")
    for place, row in enumerate(rows):
        sheet.paste(row, (0, place * row.height))
    with atomic_write(file) as part:
        sheet.save(part)


def draw_row(task: Any, sample: Any, quality: dict[int, float], title: str) -> Image.Image:
    """Return the image, its truth, and the segments of the first and the last exit with their quality."""
    size = sample.image.shape[-2:]
    photo = photo_of(sample.image, size)
    panels = {title: photo, "truth": paint(photo, true_segments(sample.truth), task.categories)}
    answers = {answer.exit: answer for answer in task.answers(sample.image, size)}
    for depth in (min(quality), max(quality)):
        layer = predicted_layer(answers[depth], size)
        panels[f"exit {depth}: PQ {quality[depth]:.0f}"] = paint(photo, layer, task.categories)
    return side_by_side(panels)
