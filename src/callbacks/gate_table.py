"""Results of training a gate beside those of other policies, as a table and as JSON."""

from typing import Any

from lightning import Trainer
from rich.table import Column, Table

from src.callbacks.score_file import ScoreFile
from src.loggers.wandb import log_trade_off
from src.metrics.exit_choice import best_exit, histogram
from src.metrics.judgement import FEWEST, Judgement, Route, Rows, Trial, judge

TITLE = "holdout of {num_holdout} images, quality: {quality}, target {target}, beta {beta:g}, epoch {epoch}"
COLUMNS = {"quality": ".4f", "utility": ".4f", "depth": ".2f", "gflops": ".4g"}


class GateTable(ScoreFile):
    """Prints and saves the results of gate, random, oracle and every fixed exit, at the epoch with the smallest loss.

    A holdout of enough images is also judged: does the gate beat chance and the best fixed exit by more than noise?

    Args:
        file: a JSON file.
    """

    def __init__(self, file: str):
        super().__init__(file)
        self.best: dict[str, Any] = {}
        self.holdout: dict[str, Any] = {}  # at that epoch, see `GateTraining`

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "holdout": self.holdout}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.holdout = state_dict["best"], state_dict.get("holdout", {})

    def on_fit_start(self, trainer: Trainer, task: Any) -> None:
        """Log the settings of the gate."""
        for logger in trainer.loggers:
            logger.log_hyperparams({"gate": dict(task.hparams["gate"])})

    def on_validation_end(self, trainer: Trainer, task: Any) -> None:
        """Keep the results if the loss is the smallest so far."""
        now = {name: float(trainer.callback_metrics[f"val/{name}"]) for name in ("loss", "accuracy", "regret")}
        if self.best and not now["loss"] < self.best["loss"]:
            return
        self.holdout = {name: values.cpu() for name, values in task.holdout.items()}
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
        judged = self.judged(task)
        if judged is not None:
            content["figures"], content["verdict"] = judged.figures, judged.verdict._asdict()
        self.publish(trainer, table_of(content), content)
        if judged is not None:
            self.console.print(f"on the holdout: {judged.verdict.answer}: {judged.verdict.why}", soft_wrap=True)
            log_figures(trainer, judged, content["step"])
        log_trade_off(trainer.loggers, content["outcomes"], "quality", "gflops", content["step"])

    def judged(self, task: Any) -> Judgement | None:
        """Judge the gate on its holdout; None if that has too few images, or an older checkpoint did not keep it."""
        if len(self.holdout.get("choice", ())) < FEWEST:
            return None
        rows = Rows(self.holdout["quality"], self.holdout["cost"], task.exits)
        route = Route(self.holdout["choice"], self.holdout["scores"].double(), range(len(task.exits)))
        return judge(rows, Trial(self.best["beta"]), route)


def log_figures(trainer: Trainer, judged: Judgement, step: int) -> None:
    """Log leads and AUROC with the ends of their intervals, and the verdict in words."""
    values = {
        f"judge/{name}{end}": getattr(figure, part)
        for name, figure in judged.figures.items()
        for end, part in (("", "value"), ("/low", "low"), ("/high", "high"))
    }
    for logger in trainer.loggers:
        logger.log_metrics(values, step)
        logger.log_hyperparams({"verdict": judged.verdict.answer})


def table_of(content: dict[str, Any]) -> Table:
    """Return a table with a row for each policy."""
    title = TITLE.format_map(content)
    numbers = [Column(name, justify="right") for name in COLUMNS]
    table = Table("choice", *numbers, title=title, title_justify="left")
    for policy, scores in content["outcomes"].items():
        table.add_row(policy, *(format(scores[name], form) for name, form in COLUMNS.items()))
    return table
