"""The settings of a run as a table at its start, and its scores as a table and as JSON after each validation."""

import math
import re
import time
from collections.abc import Collection, Sequence
from math import prod
from typing import Any

from lightning import Trainer
from rich.table import Column, Table

from src.callbacks.score_file import ScoreFile
from src.loggers.wandb import log_trade_off
from src.metrics.cost import Cost
from src.records.scores import NOTHING, QUALITIES, SHARE, quality_of

SCORES = ("pq", "sq", "rq", "pq_things", "pq_stuff", "ap", "ap50", "miou", "box_ap", "box_ap50", "depth")
COSTS = ("encoder_gflops", "total_gflops", "image_gflops", "latency_ms")


class Scoreboard(ScoreFile):
    """Prints effective settings and scores with their cost, and saves the newest scores.

    Args:
        file: a JSON file with the scores of each exit and of a gate, of their classes, and what made them;
            `total_gflops` are counted at `image_size`, `image_gflops` at the images' own sizes.
        image_size: (height, width) at which costs are counted.
    """

    def __init__(self, file: str, image_size: Sequence[int]):
        super().__init__(file)
        self.image_size = list(image_size)
        self.costs: dict[int, Cost] = {}
        self.started = 0.0

    def setup(self, trainer: Trainer, task: Any, stage: str) -> None:
        """Count the cost of every exit. Raises ValueError if sampling is set to a form that the device cannot run."""
        task.model.pixel_decoder.encoder.form_on(trainer.strategy.root_device)
        if trainer.is_global_zero and not self.costs:
            self.costs = task.cost_of.parts(self.image_size, prod(self.image_size))

    def on_train_start(self, trainer: Trainer, task: Any) -> None:
        """Print and log effective settings; of a resumed run, those of its checkpoint."""
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
        costs["gflops/total"] = self.costs[max(self.costs)].total  # of the deepest exit, to compare runs by
        for logger in trainer.loggers:
            logger.log_hyperparams(costs)

    def on_validation_start(self, trainer: Trainer, task: Any) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, task: Any) -> None:
        """Print, save and log the scores of every exit and of a gate beside their cost."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        logged = scores(trainer)
        exits = {
            str(depth): logged[f"exit{depth}"] | {"encoder_gflops": cost.pixel_decoder, "total_gflops": cost.total}
            for depth, cost in self.costs.items()
            if f"exit{depth}" in logged
        }
        gate = {"gate": logged["gate"] | mean_cost(logged["gate"], self.costs)} if "gate" in logged else {}
        when = f" at step {task.global_step}" if trainer.state.fn == "fit" else ""
        title = f"validation{when} ({time.perf_counter() - self.started:.0f} s)"
        qualities = {
            name for name in QUALITIES if any(key.startswith(f"val/{name}/") for key in trainer.callback_metrics)
        }
        table = table_of(exits | gate, title, qualities)
        settings = {"step": task.global_step, "image_size": self.image_size}
        self.publish(trainer, table, {**settings, "exits": exits, **gate, "classes": task.by_class})
        if quality := quality_of(logged.values()):
            scored = {policy: row for policy, row in (exits | gate).items() if quality in row}
            log_trade_off(trainer.loggers, scored, quality, "total_gflops", task.global_step)


def mean_cost(gate: dict[str, float], costs: dict[int, Cost]) -> dict[str, float]:
    """Return the expected costs of a gate from its shares of images at each exit."""
    shared = [(gate.get(f"{SHARE}{depth}", 0.0), cost) for depth, cost in costs.items()]
    return {
        "encoder_gflops": sum(share * cost.pixel_decoder for share, cost in shared),
        "total_gflops": sum(share * cost.total for share, cost in shared),
    }


def scores(trainer: Trainer) -> dict[str, dict[str, float]]:
    """Return what was logged as `val/SCORE/POLICY` by policy and score, without NaN (AP of a size that is absent)."""
    found: dict[str, dict[str, float]] = {}
    for key, value in trainer.callback_metrics.items():
        if re.fullmatch("val/[^/]+/(exit[0-9]+|gate)", key) and not math.isnan(value):
            _, score, policy = key.split("/")
            found.setdefault(policy, {})[score] = float(value)
    return found


def table_of(rows: dict[str, dict[str, float]], title: str, qualities: Collection[str] = ()) -> Table:
    """Return a table of scores and costs; its caption has the shares of images that leave at each exit.

    Args:
        qualities: scores that were computed; a row without one has nothing to score.
    """
    names = [name for name in (*SCORES, *COSTS) if name in qualities or any(name in row for row in rows.values())]
    shares = [
        f"{name.removeprefix(SHARE)}: {100 * share:.0f} %"
        for row in rows.values()
        for name, share in row.items()
        if name.startswith(SHARE)
    ]
    columns = [Column(name.replace("_", "\n"), justify="right") for name in ("exit", *names)]
    table = Table(*columns, title=title, caption=f"leave at exit {', '.join(shares)}" if shares else None)
    for policy, row in rows.items():
        cells = dict.fromkeys(qualities, NOTHING) | {name: f"{value:.4g}" for name, value in row.items()}
        table.add_row(policy, *(cells.get(name, "") for name in names))
    return table


def effective(trainer: Trainer, task: Any, costs: dict[int, Cost], image_size: list[int]) -> dict[str, str]:
    """Return the effective settings on this machine, by name."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    rates = {group.get("initial_lr", group["lr"]) for group in trainer.optimizers[0].param_groups}
    size, step = "x".join(map(str, image_size)), trainer.global_step
    resumed = f", resumes at step {step} of {trainer.ckpt_path}" if step else ""
    return {
        "batch": f"{data.global_batch_size} = {data.batch_size} per device x "
        f"{trainer.world_size} devices x {trainer.accumulate_grad_batches} accumulated",
        "images": images(data),
        "steps": f"{trainer.max_steps}{resumed}",
        "learning rate": ", ".join(f"{rate:g}" for rate in sorted(rates, reverse=True))
        + " (highest: all but the backbone)",
        "precision": str(trainer.precision),
        "device": str(trainer.strategy.root_device),
        "parameters": f"{sum(p.numel() for p in task.model.parameters()) / 1e6:.2f} M",
        "active levels per encoder layer": task.model.pixel_decoder.encoder.layout,
        "deformable sampling": task.model.pixel_decoder.encoder.form_on(trainer.strategy.root_device),
        "exits": ", ".join(map(str, task.model.exits)),
        **{
            f"GFLOPs at {size}, exit {depth}": f"total {cost.total:.4g}, backbone {cost.backbone:.4g}, "
            f"pixel decoder {cost.pixel_decoder:.4g}, decoder {cost.decoder:.4g}"
            for depth, cost in costs.items()
        },
        "run folder": str(trainer.default_root_dir),
    }


def images(data: Any) -> str:
    """Return how many images each split has, and how many are skipped."""
    parts = []
    for split, scenes in (("train", data.train_scenes), ("val", data.val_scenes)):
        skipped = data.num_skipped[split]
        parts.append(f"{split} {len(scenes)} ({skipped} skipped)" if skipped else f"{split} {len(scenes)}")
    return ", ".join(parts)
