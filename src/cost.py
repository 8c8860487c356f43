"""Print the cost of a model by part and exit: python -m src.cost +experiment=proscale_coco."""

import csv
import json
import sys
from typing import Any

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from src.config.build import sketch
from src.config.checkpoints import find_checkpoint
from src.config.command_line import CONF, run
from src.config.errors import report_errors
from src.config.saved_settings import saved_overrides

UNIT = "GMAC (1e9 multiply-adds, which the papers call GFLOPs)"
UNCOUNTED = ("sampling", "query_key_product")  # the papers leave these out, so no sum includes them

Survey = dict[int, Any]  # exit: Cost


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="cost")
@report_errors
def cost(cfg: DictConfig) -> None:
    """Count the cost for each image size, and print it."""
    find_checkpoint(cfg)  # raises if it does not exist; its settings are in the configuration already
    model, data = sketch(cfg)
    count = instantiate(cfg.survey)
    if isinstance(cfg.sizes, str):
        views = data.views(cfg.sizes)
        surveys = {f"mean of the {len(views)} images of {cfg.sizes}": count(model, views)}
    else:
        sizes = [cfg.image_size] if cfg.sizes is None else cfg.sizes
        surveys = {f"{height}x{width}": count(model, [((height, width), (height, width))]) for height, width in sizes}
    about = {
        "schedule": list(cfg.schedule),
        "active_levels": model.pixel_decoder.encoder.layout,
        "num_classes": model.decoder.num_classes,
        "num_queries": cfg.num_queries,
    }
    {"table": print_table, "json": print_json, "csv": print_csv}[cfg.format](surveys, about)


def print_json(surveys: dict[str, Survey], about: dict[str, Any]) -> None:
    """Print the figures of the deepest exit and the totals of all exits; for several sizes, a list of these."""
    sizes = []
    for size, survey in surveys.items():
        *_, deepest = survey.values()
        exits = {depth: one.total for depth, one in survey.items()}
        sizes.append({"size": size, **deepest.parts(), "layers": deepest.layers, "exits": exits})
    figures = sizes[0] if len(sizes) == 1 else {"sizes": sizes}
    print(json.dumps({"unit": UNIT, **about, **figures, "not_in_the_sums": UNCOUNTED}, indent=1))


def print_csv(surveys: dict[str, Survey], about: dict[str, Any]) -> None:
    """Print a row for each size and exit."""
    rows = [
        {"size": size, "exit": depth, **one.parts(), **{f"layer{i}": layer for i, layer in enumerate(one.layers, 1)}}
        for size, survey in surveys.items()
        for depth, one in survey.items()
    ]
    writer = csv.DictWriter(sys.stdout, max(rows, key=len))
    writer.writeheader()
    writer.writerows(rows)


def print_table(surveys: dict[str, Survey], about: dict[str, Any]) -> None:
    """Print a table for each size, with a column for each exit."""
    for size, survey in surveys.items():
        table = Table(title=size, title_justify="left", caption=UNIT, caption_justify="left")
        table.add_column("part", no_wrap=True)
        for depth in survey:
            table.add_column(f"exit {depth}", justify="right")
        for name, values in rows(list(survey.values())).items():
            table.add_row(name, *map(spell, values))
        Console().print(table)
    print(", ".join(f"{name} {value}" for name, value in about.items()))


def spell(value: float) -> str:
    """Format a cost in GMAC; that of a part which the model does not have is left empty."""
    if value == 0:
        return ""
    return f"{value:.3f}" if value >= 1 else f"{value:.4g}" if value >= 1e-3 else f"{value:.1e}"


def rows(costs: list[Any]) -> dict[str, list[float]]:
    """Return the costs of a part at every exit: parts of a sum are indented, those in no sum are in parentheses."""
    parts = [one.parts() for one in costs]

    def row(name: str) -> list[float]:
        return [part[name] for part in parts]

    depths = range(max(len(one.layers) for one in costs))
    layers = {f"    layer {i + 1}": [one.layers[i] if i < len(one.layers) else 0.0 for one in costs] for i in depths}
    return {
        "total": row("total"),
        "backbone": row("backbone"),
        "pixel decoder": row("pixel_decoder"),
        "  input projections": row("input_projections"),
        "  encoder layers": row("encoder_layers"),
        **layers,
        "    token re-calibration": row("recalibration"),
        "  stride 4 path": row("stride4_path"),
        "  mask convolution": row("mask_convolution"),
        "stride 8 to stride 4": row("upsampling"),
        "transformer decoder": row("decoder"),
        "gate": row("gate"),
        "post-processing": row("postprocessing"),
        "(deformable sampling)": row("sampling"),
        "(query-key product)": row("query_key_product"),
    }


if __name__ == "__main__":
    run(cost, saved_overrides(sys.argv[1:]), "cost")
