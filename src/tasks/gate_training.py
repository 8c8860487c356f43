"""ECO-M2F's step C as a Lightning task: a gate learns from an exit table alone which exit an image should take.

Letters: B images, F numbers that describe an image, E exits.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.metrics.exit_choice import (
    Outcome,
    best_exit,
    beta_for_budget,
    histogram,
    outcome,
    taken,
    utility,
)
from src.models.gate import Gate
from src.weights.checkpoint import check_state

KEPT_ROWS = 10_000  # of the holdout, whose predicted qualities turn a budget into a beta without the table

Loss = Callable[[Tensor, Tensor, Sequence[int], float, float], Tensor]


def exit_loss(scores: Tensor, quality: Tensor, exits: Sequence[int], beta: float, temperature: float) -> Tensor:
    """Cross-entropy with the exit of greatest utility, ECO-M2F's."""
    return F.cross_entropy(scores, best_exit(quality, exits, beta))


def soft_loss(scores: Tensor, quality: Tensor, exits: Sequence[int], beta: float, temperature: float) -> Tensor:
    """Cross-entropy with all exits, each by its utility: what is as good counts as much."""
    return F.cross_entropy(scores, (utility(quality, exits, beta) / temperature).softmax(1).to(scores.dtype))


def quality_loss(scores: Tensor, quality: Tensor, exits: Sequence[int], beta: float, temperature: float) -> Tensor:
    """Mean squared error of what the quality of every exit is above or below that of all exits.

    How well an image can be segmented at all is left out: it says nothing of exits, and varies far more.
    """
    scores, quality = (values - values.mean(1, keepdim=True) for values in (scores, quality))
    return F.mse_loss(scores, quality)


class Target(NamedTuple):
    """What a gate's scores are to be."""

    loss: Loss
    beta_when_run: float  # share of beta that is still to be taken off the scores


TARGETS = {"exit": Target(exit_loss, 0.0), "soft": Target(soft_loss, 0.0), "quality": Target(quality_loss, 1.0)}


class GateTraining(lightning.LightningModule):
    """A gate, trained on standardised inputs, and scored by what its choice of exits comes to.

    Args:
        gate: takes the channels of a gate input and the number of exits. optimizer: takes the gate.
        table: facts of the exit table: exits, inputs (channels by name), parent, source, segmentation, num_holdout,
            and mean and std of the inputs.
        target: what the scores are: `exit` and `soft` prefer one exit at this beta, `quality` predicts the quality of
            every exit, so that beta can be changed later.
        beta: what a layer must bring in quality.
        budget_gflops: instead of beta, the mean cost that it is found for; with `exit` and `soft` from the qualities
            of the table, with `quality` from those predicted on the holdout.
        temperature: of `soft`, in quality.
    """

    def __init__(
        self,
        gate: Callable[..., Gate],
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        table: Mapping[str, Any],
        target: str = "exit",
        beta: float = 0.0,
        budget_gflops: float | None = None,
        temperature: float = 0.02,
    ):
        super().__init__()
        check(target, beta, budget_gflops, temperature)
        self.exits, self.target, self.temperature = list(table["exits"]), target, temperature
        self.beta, self.budget = float(beta), budget_gflops
        dims = dict(table["inputs"])
        self.gate = gate(dim=next(iter(dims.values())), exits=self.exits)
        if self.gate.inputs != list(dims) or len(set(dims.values())) != 1:
            raise ValueError(
                f"task.gate.inputs={self.gate.inputs}: the data give {dims}, expected the same, all of one width"
            )
        self.make_optimizer = optimizer
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(table["mean"], dtype=torch.float32))
        self.register_buffer("std", torch.tensor(table["std"], dtype=torch.float32).clamp(min=1e-6))
        num_kept = min(KEPT_ROWS, table["num_holdout"]) if target == "quality" else 0
        self.holdout_scores: Tensor
        self.holdout_cost: Tensor
        self.register_buffer("holdout_scores", torch.zeros(num_kept, len(self.exits)))
        self.register_buffer("holdout_cost", torch.zeros(num_kept, len(self.exits)))
        self.outcomes: dict[str, Outcome] = {}  # of the last validation, by who chose
        self.taken: list[int] = []  # by the gate, images per exit
        self.seen: list[dict[str, Tensor]] = []  # of the validation that runs
        self.hparams.update(
            {
                "gate": {
                    "inputs": self.gate.inputs,
                    "dim": dims[self.gate.inputs[0]],
                    "hidden": self.gate.hidden,
                    "exits": self.exits,
                    "target": target,
                    "beta": self.beta,
                    "temperature": float(temperature),
                    **{name: table[name] for name in ("parent", "source", "segmentation")},
                }
            }
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Statistics of images (B, F), as the table has them, to scores (B, E)."""
        return self.gate.score((inputs - self.mean) / self.std)

    def loss(self, scores: Tensor, quality: Tensor) -> Tensor:
        return TARGETS[self.target].loss(scores, quality, self.exits, self.beta, self.temperature)

    def choose(self, scores: Tensor) -> Tensor:
        """The exit taken, (B,) column of the exits."""
        return best_exit(scores, self.exits, TARGETS[self.target].beta_when_run * self.beta)

    def set_beta(self, quality: Tensor, cost: Tensor) -> None:
        """Find the beta of the budget, if there is one, by qualities true or predicted (B, E)."""
        if self.budget is not None:
            self.beta = beta_for_budget(quality, cost, self.exits, self.budget)
            self.hparams["gate"]["beta"] = self.beta

    # ---- training

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume as another gate, in one line."""
        saved, ours = checkpoint["hyper_parameters"].get("gate", {}), self.hparams["gate"]
        for name in ("parent", "segmentation", "exits", "inputs", "hidden", "target", "temperature", "beta"):
            if saved.get(name) != ours[name] and not (name == "beta" and self.budget is not None):
                raise ValueError(
                    f"ckpt_path={self.trainer.ckpt_path}: a gate with {name} {brief(saved.get(name))}, this one has "
                    f"{brief(ours[name])}; expected the same to go on, or no ckpt_path to begin anew"
                )
        check_state(checkpoint["state_dict"], self.state_dict(), f"ckpt_path={self.trainer.ckpt_path}")

    def setup(self, stage: str) -> None:
        """Find the beta that labels are made with; a budget that cannot be is refused before anything runs."""
        rows = self.trainer.datamodule.rows.tensors  # type: ignore[attr-defined]
        self.set_beta(rows["quality"], rows["cost"])

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """The loss of the target."""
        loss = self.loss(self(batch["inputs"]), batch["quality"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["inputs"]))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.make_optimizer(self.gate)

    # ---- evaluation

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Score a part of the holdout."""
        self.seen.append({"scores": self(batch["inputs"]), "quality": batch["quality"], "cost": batch["cost"]})

    def score_names(self) -> list[str]:
        """What checkpoints and early stopping can go by: the scores of a validation, and the loss."""
        others = ("random", "oracle", *(f"exit{depth}" for depth in self.exits))
        by_other = [f"val/{name}/{who}" for who in others for name in Outcome._fields]
        own = [f"val/{name}" for name in ("loss", "accuracy", "regret", "beta", *Outcome._fields)]
        return [*own, *by_other, "train/loss"]

    def on_validation_epoch_end(self) -> None:
        """Log what the gate's choices come to: `val/quality`, and `val/quality/random` and so on to compare with."""
        scores, quality, cost = (
            torch.cat([part[name] for part in self.seen]) for name in ("scores", "quality", "cost")
        )
        self.seen.clear()
        if not scores.isfinite().all():
            raise FloatingPointError(
                f"scores are not finite in epoch {self.current_epoch}; try a smaller lr or, if task.target=soft, "
                "a larger task.temperature"
            )
        if TARGETS[self.target].beta_when_run:
            self.set_beta(scores, cost)
            self.holdout_scores.copy_(scores[: len(self.holdout_scores)])
            self.holdout_cost.copy_(cost[: len(self.holdout_cost)])
        choice, best = self.choose(scores), best_exit(quality, self.exits, self.beta)
        self.taken = histogram(choice, len(self.exits))
        self.outcomes = self.compare(choice, best, quality, cost)
        self.log("val/loss", self.loss(scores, quality), prog_bar=True)
        self.log("val/accuracy", (choice == best).float().mean())
        self.log("val/regret", self.outcomes["oracle"].utility - self.outcomes["gate"].utility)
        self.log("val/beta", self.beta)
        for name, value in self.outcomes["gate"]._asdict().items():
            self.log(f"val/{name}", value, prog_bar=name == "quality")
        others = {who: one for who, one in self.outcomes.items() if who != "gate"}
        self.log_dict(
            {f"val/{name}/{who}": value for who, one in others.items() for name, value in one._asdict().items()}
        )

    def compare(self, choice: Tensor, best: Tensor, quality: Tensor, cost: Tensor) -> dict[str, Outcome]:
        """What the gate's choice comes to, as many exits drawn at random, the best choice, and every exit for all."""
        count = len(self.exits)
        shares = {
            "gate": taken(choice, count),
            "random": torch.bincount(choice, minlength=count).double() / len(choice),
            "oracle": taken(best, count),
            **{f"exit{depth}": torch.eye(count, device=choice.device)[i] for i, depth in enumerate(self.exits)},
        }
        return {who: outcome(share, quality, cost, self.exits, self.beta) for who, share in shares.items()}


def brief(value: Any) -> str:
    """A value, a fingerprint by its beginning."""
    return value[:12] if isinstance(value, str) else str(value)


def check(target: str, beta: float | None, budget_gflops: float | None, temperature: float) -> None:
    """Refuse what cannot be. Raises ValueError."""
    wrong = {
        f"task.target={target}: expected one of {', '.join(TARGETS)}": target not in TARGETS,
        f"beta={beta}: expected a number, 0 or more": not (beta is not None and math.isfinite(beta) and beta >= 0),
        f"beta={beta}, budget_gflops={budget_gflops}: expected one of them": bool(beta) and budget_gflops is not None,
        f"task.temperature={temperature:g}: expected a number above 0": not (0 < temperature < math.inf),
    }
    if said := [what for what, so in wrong.items() if so]:
        raise ValueError("; ".join(said))
