"""What came of training a gate: what it chooses beside what others would, as a table and as JSON."""

from pathlib import Path
from typing import Any

import lightning
from rich.table import Table

from src.callbacks.console import open_console
from src.loggers.wandb import log_trade_off
from src.metrics.exit_choice import best_exit, histogram
from src.records.provenance import made_by, revision
from src.system.atomic import write_json

COLUMNS = {"quality": "{:.4f}", "utility": "{:.4f}", "depth": "{:.2f}", "gflops": "{:.4g}"}


class GateTable(lightning.Callback):
    """Prints gate, random, oracle and every fixed exit after training, and keeps them in `file`, of the best epoch.

    Args:
        file: a JSON file; what made the numbers is under "made_by".
    """

    def __init__(self, file: str):
        self.file = Path(file)
        self.best: dict[str, Any] = {}
        self.console = open_console()
        revision()  # before anyone edits what runs

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to beat."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best = state_dict["best"]

    def on_fit_start(self, trainer: lightning.Trainer, task: Any) -> None:
        """Say which gate is trained, by which settings."""
        for logger in trainer.loggers:
            logger.log_hyperparams({"gate": dict(task.hparams["gate"])})

    def on_validation_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """Keep the numbers if they are of the smallest loss so far."""
        now = {name: float(trainer.callback_metrics[f"val/{name}"]) for name in ("loss", "accuracy", "regret")}
        if self.best and not now["loss"] < self.best["loss"]:
            return
        self.best = {
            "epoch": trainer.current_epoch,
            "step": task.global_step,
            "target": task.target,
            "beta": task.beta,
            **now,
            "taken": dict(zip(task.exits, task.taken, strict=True)),
            "outcomes": {who: one._asdict() for who, one in task.outcomes.items()},
        }

    def on_fit_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """Print and write."""
        if not trainer.is_global_zero:
            return
        if not self.best:
            raise ValueError(
                "training ended before any validation, so there is no gate; expected a smaller validate_every"
            )
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        labels = best_exit(data.rows.tensors["quality"][data.train], task.exits, self.best["beta"])
        content = {
            **self.best,
            **data.facts,
            "labels": dict(zip(task.exits, histogram(labels, len(task.exits)), strict=True)),
            "made_by": made_by(trainer.strategy.root_device, trainer.world_size),
        }
        self.console.print(table_of(content))
        write_json(content, self.file)
        log_trade_off(trainer.loggers, content["outcomes"], "quality", "gflops", content["step"])


def table_of(content: dict[str, Any]) -> Table:
    """A row for everyone who might choose."""
    title = f"holdout of {content['num_holdout']} images, target {content['target']}, beta {content['beta']:g}, "
    table = Table(title=f"{title}epoch {content['epoch']}", title_justify="left")
    table.add_column("choice")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for who, values in content["outcomes"].items():
        table.add_row(who, *(form.format(values[name]) for name, form in COLUMNS.items()))
    return table
