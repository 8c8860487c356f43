"""ECO-M2F's step C as a Lightning task: a gate learns from an exit table alone which exit an image should take.

Letters: B images, F numbers that describe an image, E exits.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from src.metrics.budget import Times, budget_of
from src.metrics.exit_choice import Outcome, best_exit, beta_for_budget, histogram, outcome, taken
from src.models.gate import Gate
from src.tasks.gate_checkpoint import GateCheckpoint, expect_one
from src.tasks.gate_targets import CENTRES, TARGETS, Rows, Scored, as_they_are
from src.weights.checkpoint import check_state

KEPT_ROWS = 10_000  # of the holdout, whose scores turn a budget into a price without the table
# What a resumed gate has in common with its checkpoint.
SAME_WHEN_RESUMED = (
    *("parent", "segmentation", "quality", "exits", "inputs"),
    *("hidden", "target", "temperature", "centre", "beta"),
)


class GateTraining(lightning.LightningModule):
    """Trains a gate on standardised inputs; scores quality, cost and utility of the exits that it chooses.

    Args:
        gate: takes the numbers in each gate input, the exits and the first exit. optimizer: takes the gate.
        table: facts of the exit table: exits, inputs (numbers in each, by name), parent, source, segmentation, quality,
            num_holdout, mean and std of the inputs, and the first exit, where look-back inputs were taken.
        target: meaning of the scores: with `exit` and `soft` the best exit at this beta is preferred, with `quality`
            the quality of every exit is predicted, with `gain` images are ranked by what going on brings; with the
            last two beta can be changed later.
        beta: gain in quality that an encoder layer must bring.
        budget_gflops: instead of beta, a mean cost from which beta is determined: with `exit` and `soft` by the
            qualities in the table, with `quality` by those predicted on the holdout. With `gain` the scores on the
            holdout determine which images go on, and the qualities in the table the beta of the scores.
        budget_ms: the same in milliseconds. latency: the times of the parent's exits that it goes by.
        budget_per_image: false; it is a matter of gates that run.
        temperature: of `soft`, in quality.
        centre: of `gain`: mean or median, see `centred_gains`.
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
        centre: str = "mean",
        budget_ms: float | None = None,
        budget_per_image: bool = False,
        latency: Times | None = None,
    ):
        super().__init__()
        check(target, beta, temperature, centre)
        expect_one(beta=beta or None, budget_gflops=budget_gflops, budget_ms=budget_ms)
        if budget_per_image:
            raise ValueError(
                "budget_per_image=true: gates keep to it when they run, in src.evaluate and src.predict; expected false"
            )
        self.exits, self.target, self.temperature = list(table["exits"]), target, temperature
        self.beta, self.budget = float(beta), budget_of(budget_gflops, budget_ms, budget_per_image, latency)
        self.price = TARGETS[target].beta_when_run * self.beta  # subtracted from the scores for each layer
        widths, first_exit = dict(table["inputs"]), table.get("first_exit")
        self.gate = gate(dim=list(widths.values()), exits=self.exits, first_exit=first_exit)
        if self.gate.inputs != list(widths):
            raise ValueError(f"task.gate.inputs={self.gate.inputs}: the data give {widths}, expected the same")
        self.make_optimizer = optimizer
        self.mean = nn.Buffer(torch.tensor(table["mean"], dtype=torch.float32))
        self.std = nn.Buffer(torch.tensor(table["std"], dtype=torch.float32).clamp(min=1e-6))
        self.zero, self.scale = nn.Buffer(torch.zeros(len(self.exits)), persistent=False), 1.0  # see `Unit`
        self.lines = as_they_are((), len(self.exits))
        self.num_kept = min(KEPT_ROWS, table["num_holdout"]) if TARGETS[target].beta_when_run else 0
        for name in TARGETS[target].kept:
            self.register_buffer(f"holdout_{name}", torch.zeros(self.num_kept, len(self.exits)))
        self.outcomes: dict[str, Outcome] = {}  # of the last validation, by policy
        self.taken: list[int] = []  # by the gate, images per exit
        self.holdout: dict[str, Tensor] = {}  # of the last validation: quality, cost, scores, choice
        self.seen: list[dict[str, Tensor]] = []  # batches of the current validation
        about = GateCheckpoint(
            inputs=self.gate.inputs,
            dim=self.gate.widths,
            hidden=self.gate.hidden,
            exits=self.exits,
            target=target,
            beta=self.beta,
            temperature=float(temperature),
            parent=table["parent"],
            source=table["source"],
            segmentation=table["segmentation"],
            first_exit=first_exit,
            price=self.price,
            centre=centre,
            **self.lines._asdict(),
            quality=table.get("quality", "score"),
        )
        self.hparams["gate"] = about._asdict()  # plain values, which a checkpoint can hold

    def forward(self, inputs: Tensor) -> Tensor:
        """Return scores (B, E), as the loss takes them, of the inputs (B, F) in an exit table."""
        return self.gate.score((inputs - self.mean) / self.std)

    def loss(self, scores: Tensor, quality: Tensor) -> Tensor:
        quality = (quality - self.zero) / self.scale
        return TARGETS[self.target].loss(scores, quality, self.exits, self.beta, self.temperature)

    def in_lines(self, scores: Tensor) -> Tensor:
        """Return what the gate puts out (N, E) as scores from which an exit is chosen, (N, E)."""
        matrix, offset = (part.to(scores.device) for part in self.lines.matrix())
        return scores @ matrix.T + offset

    def choose(self, scores: Tensor) -> Tensor:
        """Return the column (B,) of the exit that each image takes."""
        return best_exit(scores, self.exits, self.price)

    def set_beta(self, quality: Tensor, cost: Tensor) -> None:
        """Set beta to meet the budget, if there is one, by qualities (N, E)."""
        if self.budget is not None:
            self.beta = beta_for_budget(quality, cost, self.exits, self.budget)
            self.hparams["gate"]["beta"] = self.beta

    def set_unit(self, quality: Tensor) -> None:
        """Set the unit of qualities in the loss by those of the training rows (N, E)."""
        zero, self.scale = TARGETS[self.target].unit(quality, self.hparams["gate"]["centre"])
        self.zero.copy_(torch.tensor(zero))

    def training_rows(self) -> Scored:
        """Yield scores and qualities of the training rows."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        for indices in data.train.split(8192):
            rows = data.rows[indices]
            yield self(rows["inputs"].to(self.device)), rows["quality"].to(self.device)

    def set_lines(self) -> None:
        """Set the lines that make scores of what the gate puts out."""
        self.lines = TARGETS[self.target].lines(self.training_rows(), len(self.exits))
        self.hparams["gate"] |= self.lines._asdict()

    def set_price(self, rows: Rows) -> None:
        """Set the price of a layer by the scores on the holdout, and keep what another price can be found from."""
        target = TARGETS[self.target]
        self.beta, self.price = target.price(rows, self.exits, self.beta, self.budget)
        self.hparams["gate"] |= {"beta": self.beta, "price": self.price}
        for name in target.kept:
            self.get_buffer(f"holdout_{name}").copy_(getattr(rows, name)[: self.num_kept])

    # ---- training

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise ValueError for the checkpoint of another gate."""
        saved, ours = checkpoint["hyper_parameters"].get("gate", {}), self.hparams["gate"]
        saved = {"quality": "score", "centre": ours["centre"], **saved}  # which older checkpoints do not say
        for name in SAME_WHEN_RESUMED:
            if saved.get(name) != ours[name] and not (name == "beta" and self.budget is not None):
                raise ValueError(
                    f"ckpt_path={self.trainer.ckpt_path}: a gate with {name} {brief(saved.get(name))}, this one has "
                    f"{brief(ours[name])}; expected the same to resume, or no ckpt_path to start anew"
                )
        check_state(checkpoint["state_dict"], self.state_dict(), f"ckpt_path={self.trainer.ckpt_path}")

    def setup(self, stage: str) -> None:
        """Set the beta of the labels and the unit of the scores. Raises ValueError for a budget that cannot be met."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        rows = data.rows.tensors
        self.set_beta(rows["quality"], rows["cost"])
        self.set_unit(rows["quality"][data.train])

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
        own = [f"val/{name}" for name in ("loss", "accuracy", "regret", "beta", "price", *Outcome._fields)]
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
        self.log("val/loss", self.loss(scores, quality), prog_bar=True)
        self.set_lines()
        scores = self.in_lines(scores)
        self.set_price(Rows(scores, quality, cost))
        choice, best = self.choose(scores), best_exit(quality, self.exits, self.beta)
        self.holdout = {"quality": quality, "cost": cost, "scores": scores, "choice": choice}
        self.taken = histogram(choice, len(self.exits))
        self.outcomes = self.compare(choice, best, quality, cost)
        self.log("val/accuracy", (choice == best).float().mean())
        self.log("val/regret", self.outcomes["oracle"].utility - self.outcomes["gate"].utility)
        self.log("val/beta", self.beta)
        self.log("val/price", self.price)
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


def check(target: str, beta: float | None, temperature: float, centre: str) -> None:
    """Raise ValueError for a setting that is out of range."""
    problems = []
    if target not in TARGETS:
        problems.append(f"task.target={target}: expected one of {', '.join(TARGETS)}")
    if beta is None or not math.isfinite(beta) or beta < 0:
        problems.append(f"beta={beta}: expected a number, 0 or more")
    if not 0 < temperature < math.inf:
        problems.append(f"task.temperature={temperature:g}: expected a number above 0")
    if centre not in CENTRES:
        problems.append(f"task.centre={centre}: expected one of {', '.join(CENTRES)}")
    if problems:
        raise ValueError("; ".join(problems))
