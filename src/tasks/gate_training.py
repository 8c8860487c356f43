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

from src.metrics.exit_choice import Outcome, best_exit, beta_for_budget, histogram, outcome, taken, utility
from src.models.gate import Gate
from src.tasks.gate_checkpoint import GateCheckpoint, expect_one
from src.weights.checkpoint import check_state

KEPT_ROWS = 10_000  # of the holdout, whose predicted qualities turn a budget into a beta without the table

Loss = Callable[[Tensor, Tensor, Sequence[int], float, float], Tensor]


def exit_loss(scores: Tensor, quality: Tensor, exits: Sequence[int], beta: float, temperature: float) -> Tensor:
    """Cross-entropy with the exit of greatest utility, as in ECO-M2F."""
    return F.cross_entropy(scores, best_exit(quality, exits, beta))


def soft_loss(scores: Tensor, quality: Tensor, exits: Sequence[int], beta: float, temperature: float) -> Tensor:
    """Cross-entropy with a softmax over the utilities of all exits."""
    return F.cross_entropy(scores, (utility(quality, exits, beta) / temperature).softmax(1).to(scores.dtype))


def quality_loss(scores: Tensor, quality: Tensor, exits: Sequence[int], beta: float, temperature: float) -> Tensor:
    """Mean squared error of centred qualities: each exit's quality minus the image's mean over exits.

    The mean says how hard an image is. It varies far more than the differences and does not help to choose an exit.
    """
    return F.mse_loss(scores - scores.mean(1, keepdim=True), quality - quality.mean(1, keepdim=True))


class Target(NamedTuple):
    """The training target of a gate."""

    loss: Loss
    beta_when_run: float  # multiplier on beta at inference: 0 if the labels contain beta already


TARGETS = {"exit": Target(exit_loss, 0.0), "soft": Target(soft_loss, 0.0), "quality": Target(quality_loss, 1.0)}


class GateTraining(lightning.LightningModule):
    """Trains a gate on standardised inputs; scores quality, cost and utility of the exits that it chooses.

    Args:
        gate: takes the channels of a gate input and the number of exits. optimizer: takes the gate.
        table: facts of the exit table: exits, inputs (channels by name), parent, source, segmentation, quality,
            num_holdout, and mean and std of the inputs.
        target: meaning of the scores: with `exit` and `soft` the best exit at this beta is preferred, with `quality`
            the quality of every exit is predicted, so that beta can be changed later.
        beta: gain in quality that an encoder layer must bring.
        budget_gflops: instead of beta, a mean cost from which beta is determined: with `exit` and `soft` by the
            qualities in the table, with `quality` by those predicted on the holdout.
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
        self.mean = nn.Buffer(torch.tensor(table["mean"], dtype=torch.float32))
        self.std = nn.Buffer(torch.tensor(table["std"], dtype=torch.float32).clamp(min=1e-6))
        num_kept = min(KEPT_ROWS, table["num_holdout"]) if target == "quality" else 0
        self.holdout_scores = nn.Buffer(torch.zeros(num_kept, len(self.exits)))
        self.holdout_cost = nn.Buffer(torch.zeros(num_kept, len(self.exits)))
        self.outcomes: dict[str, Outcome] = {}  # of the last validation, by policy
        self.taken: list[int] = []  # by the gate, images per exit
        self.seen: list[dict[str, Tensor]] = []  # batches of the current validation
        about = GateCheckpoint(
            inputs=self.gate.inputs,
            dim=dims[self.gate.inputs[0]],
            hidden=self.gate.hidden,
            exits=self.exits,
            target=target,
            beta=self.beta,
            temperature=float(temperature),
            parent=table["parent"],
            source=table["source"],
            segmentation=table["segmentation"],
            quality=table.get("quality", "score"),
        )
        self.hparams["gate"] = about._asdict()  # plain values, which a checkpoint can hold

    def forward(self, inputs: Tensor) -> Tensor:
        """Return scores (B, E) of the statistics (B, F) in an exit table."""
        return self.gate.score((inputs - self.mean) / self.std)

    def loss(self, scores: Tensor, quality: Tensor) -> Tensor:
        return TARGETS[self.target].loss(scores, quality, self.exits, self.beta, self.temperature)

    def choose(self, scores: Tensor) -> Tensor:
        """Return the column (B,) of the exit that each image takes."""
        return best_exit(scores, self.exits, TARGETS[self.target].beta_when_run * self.beta)

    def set_beta(self, quality: Tensor, cost: Tensor) -> None:
        """Set beta to meet the budget, if there is one, by true or predicted qualities (B, E)."""
        if self.budget is not None:
            self.beta = beta_for_budget(quality, cost, self.exits, self.budget)
            self.hparams["gate"]["beta"] = self.beta

    # ---- training

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise ValueError for the checkpoint of another gate."""
        saved, ours = checkpoint["hyper_parameters"].get("gate", {}), self.hparams["gate"]
        saved = {"quality": "score", **saved}  # which older checkpoints do not say
        for name in ("parent", "segmentation", "quality", "exits", "inputs", "hidden", "target", "temperature", "beta"):
            if saved.get(name) != ours[name] and not (name == "beta" and self.budget is not None):
                raise ValueError(
                    f"ckpt_path={self.trainer.ckpt_path}: a gate with {name} {brief(saved.get(name))}, this one has "
                    f"{brief(ours[name])}; expected the same to resume, or no ckpt_path to start anew"
                )
        check_state(checkpoint["state_dict"], self.state_dict(), f"ckpt_path={self.trainer.ckpt_path}")

    def setup(self, stage: str) -> None:
        """Set the beta of the labels. Raises ValueError for a budget that cannot be met."""
        rows = self.trainer.datamodule.rows.tensors  # type: ignore[attr-defined]
        self.set_beta(rows["quality"], rows["cost"])

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """Return the loss of a batch of the table's rows."""
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
        """Return the scores that checkpoints and early stopping may monitor."""
        others = ("random", "oracle", *(f"exit{depth}" for depth in self.exits))
        by_other = [f"val/{name}/{policy}" for policy in others for name in Outcome._fields]
        own = [f"val/{name}" for name in ("loss", "accuracy", "regret", "beta", *Outcome._fields)]
        return [*own, *by_other, "train/loss"]

    def on_validation_epoch_end(self) -> None:
        """Log `val/quality` and so on of the gate, `val/quality/random` and so on of other policies."""
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
        for policy, result in self.outcomes.items():
            for name, value in result._asdict().items():
                if policy == "gate":
                    self.log(f"val/{name}", value, prog_bar=name == "quality")
                else:
                    self.log(f"val/{name}/{policy}", value)

    def compare(self, choice: Tensor, best: Tensor, quality: Tensor, cost: Tensor) -> dict[str, Outcome]:
        """Score the gate, random exits with the same histogram, the oracle, and every exit for all images."""
        count = len(self.exits)
        shares = {
            "gate": taken(choice, count),
            "random": torch.bincount(choice, minlength=count).double() / len(choice),
            "oracle": taken(best, count),
            **{f"exit{depth}": torch.eye(count, device=choice.device)[i] for i, depth in enumerate(self.exits)},
        }
        return {policy: outcome(share, quality, cost, self.exits, self.beta) for policy, share in shares.items()}


def brief(value: Any) -> str:
    """Return a value as text; a fingerprint is shortened."""
    return value[:12] if isinstance(value, str) else str(value)


def check(target: str, beta: float | None, budget_gflops: float | None, temperature: float) -> None:
    """Raise ValueError for a setting that is out of range."""
    problems = []
    if target not in TARGETS:
        problems.append(f"task.target={target}: expected one of {', '.join(TARGETS)}")
    if beta is None or not math.isfinite(beta) or beta < 0:
        problems.append(f"beta={beta}: expected a number, 0 or more")
    if not 0 < temperature < math.inf:
        problems.append(f"task.temperature={temperature:g}: expected a number above 0")
    if problems:
        raise ValueError("; ".join(problems))
    expect_one(beta=beta or None, budget_gflops=budget_gflops)
