"""What a run is about to do, and what came of it: a table at the start and one after each validation."""

import math
import re
import time
from collections.abc import Collection, Sequence
from math import prod
from pathlib import Path
from typing import Any

import lightning
from rich.table import Table

from src.callbacks.console import open_console
from src.loggers.wandb import log_trade_off
from src.metrics.cost import Cost
from src.records.provenance import made_by, revision
from src.records.scores import NOTHING, QUALITIES, SHARE, quality_of
from src.system.atomic import write_json

COLUMNS = (
    "pq",
    "sq",
    "rq",
    "pq_things",
    "pq_stuff",
    "ap",
    "ap50",
    "miou",
    "depth",
    "encoder_gflops",
    "total_gflops",
    "image_gflops",
    "latency_ms",
)


class Scoreboard(lightning.Callback):
    """Prints effective settings and scores with their cost, and keeps the newest scores in `file`.

    Args:
        file: a JSON file, one entry per exit under "exits", of a gate "gate"; `total_gflops` at `image_size`,
            `image_gflops` at the images' own sizes;
            what each class has of them under "classes", by exit or gate; what made them under "made_by".
        image_size: (height, width) that costs are counted at.
    """

    def __init__(self, file: str, image_size: Sequence[int]):
        self.file = Path(file)
        self.image_size = list(image_size)
        self.costs: dict[int, Cost] = {}
        self.console = open_console()
        self.started = 0.0
        revision()  # before anyone edits what runs

    def setup(self, trainer: lightning.Trainer, task: Any, stage: str) -> None:
        """Count the cost of every exit, before anything runs."""
        if trainer.is_global_zero and not self.costs:
            self.costs = task.cost_of.parts(self.image_size, prod(self.image_size))

    def on_train_start(self, trainer: lightning.Trainer, task: Any) -> None:
        """Say what the settings come to, those of a run that goes on as its checkpoint has them."""
        if not trainer.is_global_zero:
            return
        table = Table(title="this run", show_header=False, title_justify="left")
        for name, value in effective(trainer, task, self.costs, self.image_size).items():
            table.add_row(name, value)
        self.console.print(table)
        costs = {
            f"gflops/exit{depth}/{part}": value
            for depth, cost in self.costs.items()
            for part, value in cost.parts().items()
        }
        costs["gflops/total"] = self.costs[max(self.costs)].total  # of the last exit, to compare runs by
        for logger in trainer.loggers:
            logger.log_hyperparams(costs)

    def on_validation_start(self, trainer: lightning.Trainer, task: Any) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """Print and keep the scores of every exit beside their cost."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        by_row = scores(trainer)
        exits = {
            str(depth): {
                **by_row[f"exit{depth}"],
                "encoder_gflops": cost.pixel_decoder,
                "total_gflops": cost.total,
            }
            for depth, cost in self.costs.items()
            if f"exit{depth}" in by_row
        }
        gate = {"gate": by_row["gate"] | mean_cost(by_row["gate"], self.costs)} if "gate" in by_row else {}
        when = f" at step {task.global_step}" if trainer.state.fn == "fit" else ""
        title = f"validation{when} ({time.perf_counter() - self.started:.0f} s)"
        self.console.print(table_of(exits | gate, title, asked(trainer)))
        maker = made_by(trainer.strategy.root_device, trainer.world_size)
        content = {
            "step": task.global_step,
            "image_size": self.image_size,
            "exits": exits,
            **gate,
            "classes": task.by_class,
            "made_by": maker,
        }
        write_json(content, self.file)
        if quality := quality_of(by_row.values()):
            scored = {who: row for who, row in (exits | gate).items() if quality in row}
            log_trade_off(trainer.loggers, scored, quality, "total_gflops", task.global_step)


def mean_cost(gate: dict[str, float], costs: dict[int, Cost]) -> dict[str, float]:
    """What a gate's choice costs at the size that costs of exits are counted at, by its shares of images."""
    shares = {depth: gate.get(f"{SHARE}{depth}", 0.0) for depth in costs}
    return {
        "encoder_gflops": sum(share * costs[depth].pixel_decoder for depth, share in shares.items()),
        "total_gflops": sum(share * costs[depth].total for depth, share in shares.items()),
    }


def scores(trainer: lightning.Trainer) -> dict[str, dict[str, float]]:
    """What was logged under `val/SCORE/ROW`, by row and score; not what is nan: AP of a size not seen."""
    found: dict[str, dict[str, float]] = {}
    for key, value in trainer.callback_metrics.items():
        if re.fullmatch("val/[^/]+/(exit[0-9]+|gate)", key) and not math.isnan(value):
            _, score, row = key.split("/")
            found.setdefault(row, {})[score] = float(value)
    return found


def asked(trainer: lightning.Trainer) -> set[str]:
    """The qualities that were logged of rows, those that are nan for want of anything annotated too."""
    return {name for name in QUALITIES if any(key.startswith(f"val/{name}/") for key in trainer.callback_metrics)}


def table_of(rows: dict[str, dict[str, float]], title: str, qualities: Collection[str] = ()) -> Table:
    """Scores and costs of every row, as one reads them; below, where a gate lets images leave.

    Of `qualities` it is said where there was nothing to score.
    """
    names = [name for name in COLUMNS if name in qualities or any(name in row for row in rows.values())]
    shares = [
        f"{name[len(SHARE) :]}: {100 * share:.0f} %"
        for row in rows.values()
        for name, share in row.items()
        if name.startswith(SHARE)
    ]
    table = Table(title=title, caption=f"leave at exit {', '.join(shares)}" if shares else None)
    for name in ("exit", *names):
        table.add_column(name.replace("_", "\n"), justify="right")
    for row, values in rows.items():
        blank = dict.fromkeys(qualities, NOTHING)
        table.add_row(row, *(f"{values[name]:.4g}" if name in values else blank.get(name, "") for name in names))
    return table


def effective(trainer: lightning.Trainer, task: Any, costs: dict[int, Cost], image_size: list[int]) -> dict[str, str]:
    """What the settings come to on this machine."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    optimizer = trainer.optimizers[0]
    rates = sorted({group.get("initial_lr", group["lr"]) for group in optimizer.param_groups}, reverse=True)
    size, step = "x".join(map(str, image_size)), trainer.global_step
    return {
        "batch": f"{data.global_batch_size} = {data.batch_size} per device x "
        f"{trainer.world_size} devices x {trainer.accumulate_grad_batches} accumulated",
        "images": ", ".join(images(data)),
        "steps": str(trainer.max_steps) + f", goes on from step {step} of {trainer.ckpt_path}" * bool(step),
        "learning rate": ", ".join(f"{rate:g}" for rate in rates) + " (highest: all but the backbone)",
        "precision": str(trainer.precision),
        "device": str(trainer.strategy.root_device),
        "parameters": f"{sum(p.numel() for p in task.model.parameters()) / 1e6:.2f} M",
        "levels alive per encoder layer": " ".join(map(str, task.model.pixel_decoder.encoder.active_levels)),
        "exits": ", ".join(map(str, task.model.exits)),
        **{
            f"GFLOPs at {size}, exit {depth}": f"total {cost.total:.4g}, backbone {cost.backbone:.4g}, "
            f"pixel decoder {cost.pixel_decoder:.4g}, decoder {cost.decoder:.4g}"
            for depth, cost in costs.items()
        },
        "run folder": str(trainer.default_root_dir),
    }


def images(data: Any) -> list[str]:
    """How many images each split has, and how many of them are left out for a flaw."""
    return [
        f"{split} {len(scenes)}" + f" ({data.num_skipped[split]} skipped)" * bool(data.num_skipped[split])
        for split, scenes in (("train", data.train_scenes), ("val", data.val_scenes))
    ]
