"""Results of training a gate beside those of other policies, as a table and as JSON."""

from typing import Any

from lightning import Trainer
from rich.table import Column, Table

from src.callbacks.score_file import ScoreFile
from src.loggers.wandb import log_trade_off
from src.metrics.exit_choice import best_exit, histogram

TITLE = "holdout of {num_holdout} images, quality: {quality}, target {target}, beta {beta:g}, epoch {epoch}"
COLUMNS = {"quality": ".4f", "utility": ".4f", "depth": ".2f", "gflops": ".4g"}


class GateTable(ScoreFile):
    """Prints and saves the results of gate, random, oracle and every fixed exit, at the epoch with the smallest loss.

    Args:
        file: a JSON file.
    """

    def __init__(self, file: str):
        super().__init__(file)
        self.best: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_fit_start(self, trainer: Trainer, task: Any) -> None:
        """Log the settings of the gate."""
        for logger in trainer.loggers:
            logger.log_hyperparams({"gate": dict(task.hparams["gate"])})

    def on_validation_end(self, trainer: Trainer, task: Any) -> None:
        """Keep the results if the loss is the smallest so far."""
        now = {name: float(trainer.callback_metrics[f"val/{name}"]) for name in ("loss", "accuracy", "regret")}
        if self.best and not now["loss"] < self.best["loss"]:
            return
        self.best = {
            "epoch": trainer.current_epoch,
            "step": task.global_step,
            "target": task.target,
            "beta": task.beta,
            "price": task.price,
            **now,
            "taken": dict(zip(task.exits, task.taken, strict=True)),
            "outcomes": {policy: outcome._asdict() for policy, outcome in task.outcomes.items()},
        }

    def on_fit_end(self, trainer: Trainer, task: Any) -> None:
        """Print, save and log the results. Raises ValueError if there was no validation."""
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
        }
        self.publish(trainer, table_of(content), content)
        log_trade_off(trainer.loggers, content["outcomes"], "quality", "gflops", content["step"])


def table_of(content: dict[str, Any]) -> Table:
    """Return a table with a row for each policy."""
    title = TITLE.format_map(content)
    numbers = [Column(name, justify="right") for name in COLUMNS]
    table = Table("choice", *numbers, title=title, title_justify="left")
    for policy, scores in content["outcomes"].items():
        table.add_row(policy, *(format(scores[name], form) for name, form in COLUMNS.items()))
    return table
