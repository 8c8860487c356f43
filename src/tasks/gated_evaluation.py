"""A trained model whose gate chooses the exit of every image (ECO-M2F, inference), and is scored there."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from src.metrics.budget import Budget, Times, budget_of
from src.models.gate import Gate
from src.models.model import Model
from src.records.scores import SHARE
from src.tasks.base import EvaluationTask
from src.tasks.evaluation import ImagePrediction
from src.tasks.gate_checkpoint import GateCheckpoint, expect_one
from src.tasks.gate_targets import TARGETS, Lines, Rows
from src.weights.checkpoint import fingerprint
from src.weights.files import load

if TYPE_CHECKING:
    from src.data.targets import Batch

OWN = "own"


class GatedEvaluation(EvaluationTask):
    """Scored as one model, each image at the exit that the gate chooses; without a gate, at every exit.

    Args:
        gate: a checkpoint of `GateTraining`; own: the gate that the model's weights have; null: none.
        beta: gain in quality that an encoder layer must bring, for gates of target quality or gain; null: as trained.
        budget_gflops, budget_ms: instead of beta, the mean cost to keep to.
        budget_per_image: no image may cost more; the gate chooses among the exits within the budget, by beta.
        latency: the times of the model's exits on this machine, for `budget_ms`.
        others: as `EvaluationTask`.
    """

    refusal = "task=gated scores what is trained: python -m src.evaluate, not src.train"

    def __init__(
        self,
        *,
        gate: str | None = None,
        beta: float | None = None,
        budget_gflops: float | None = None,
        budget_ms: float | None = None,
        budget_per_image: bool = False,
        latency: Times | None = None,
        **others: Any,
    ):
        budget = budget_of(budget_gflops, budget_ms, budget_per_image, latency)
        super().__init__(**others)
        if gate is None:
            refuse("nothing chooses an exit without gate=FILE", beta, budget)
        elif gate != OWN:
            self.model.gate = load_gate(gate, self.model, beta, budget, self.segmentation)
        elif self.model.gate is None:
            raise ValueError(f"gate={OWN}: the weights have no gate, expected the checkpoint of one")
        else:
            refuse(f"gate={OWN} has a beta fixed by training", beta, of_mean(budget))
        self.gated, self.budget = gate is not None, budget
        if self.model.gate is not None and self.gated:
            self.score("gate")
            names = ("depth", *(f"{SHARE}{depth}" for depth in self.model.gate.exits))
            self.means: Any = nn.ModuleDict({name: MeanMetric() for name in names})

    def rows(self, images: Tensor, costs: Sequence[Sequence[float]]) -> dict[str, tuple[Any, list[int]]]:
        """Return the prediction of each image at the exit that the gate chose, and these depths (B,)."""
        if not self.gated:
            return super().rows(images, costs)
        return {"gate": self.leave(images, self.spent(costs))}

    def leave(self, images: Tensor, spent: Sequence[Sequence[float]]) -> tuple[Any, list[int]]:
        """Return the last prediction and the depth (B,) of each image of a preprocessed batch, by the gate.

        Args:
            spent: (B, E), what an image costs at each exit in the unit of the budget.

        Raises ValueError for an image that costs more than `budget_per_image` at every exit.
        """
        gate = self.model.gate
        assert gate is not None
        if self.budget is None or not self.budget.per_image:
            return self.model.leave(images)
        columns = [self.cost_of.exits.index(depth) for depth in gate.exits]
        allowed = [self.budget.affords([row[i] for i in columns], gate.exits) for row in spent]
        return self.model.leave(images, partial(gate.choose, allowed=allowed), gate.after)

    def spent(self, gflops: Sequence[Sequence[float]]) -> list[list[float]]:
        """Return costs (B, E) in GFLOPs in the unit of the budget; without one, as they are."""
        costs = torch.tensor(gflops, dtype=torch.float64)
        return (costs if self.budget is None else self.budget.costs(costs, self.cost_of.exits)).tolist()

    def ways(self) -> dict[str, Callable[[Tensor], Any]]:
        """Return for each exit and the gate a function from preprocessed images to predictions."""
        return super().ways() | ({"gate": self.leave_alone} if self.gated else {})

    def leave_alone(self, images: Tensor) -> tuple[Any, list[int]]:
        """Return what `leave` does, of images as large as their batch."""
        size = images.shape[-2:]
        return self.leave(images, self.spent([self.cost_of(size, prod(size))] * len(images)))

    def validation_step(self, batch: "Batch", batch_index: int) -> dict[str, Any]:
        """Score a batch; return predictions, and with a gate the GFLOPs of each image at its own size."""
        outputs = super().validation_step(batch, batch_index)
        if not self.gated:
            return outputs
        exits = [answer.exit for answer in outputs["answers"]]
        for name, mean in self.means.items():
            of_images = exits if name == "depth" else [float(name == f"{SHARE}{depth}") for depth in exits]
            mean.update(torch.tensor(of_images, dtype=torch.float32, device=self.device))
        answers = [self.timed(answer) for answer in outputs["answers"]]
        return {"answers": answers, "gflops": [answer.gflops for answer in answers]}

    def timed(self, answer: ImagePrediction) -> ImagePrediction:
        """Return a prediction with its milliseconds, if there is a budget of these."""
        if self.budget is None or answer.exit is None or answer.gflops is None:
            return answer
        return answer._replace(ms=self.budget.milliseconds(answer.exit, answer.gflops))

    def on_validation_epoch_end(self) -> None:
        """Log `val/pq/gate`, and with it the mean depth and the share of images at every exit."""
        super().on_validation_epoch_end()
        if self.gated:
            self.log_dict({f"val/{name}/gate": mean.compute() for name, mean in self.means.items()})
            self.log("val/beta/gate", self.model.gate.beta)  # type: ignore[union-attr]
            for mean in self.means.values():
                mean.reset()


class SavedGate(NamedTuple):
    """A gate as its checkpoint has it."""

    gate: Gate
    about: GateCheckpoint
    rows: Rows  # of the holdout, where the target keeps some; the others are empty
    table: Mapping[str, Any] = {}  # of its training, with the ids of its images


def load_gate(
    file: str,
    model: Model,
    beta: float | None = None,
    budget: Budget | None = None,
    segmentation: str = "panoptic",
) -> Gate:
    """Load a trained gate for a model and a kind of segmentation.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a gate, a gate of another parent, or an impossible beta or budget.
    """
    saved, ours = read_gate(file), fingerprint(model)
    gate, about = saved.gate, saved.about
    if about.parent != ours:
        raise ValueError(
            f"gate={file}: it was trained for the weights {about.parent[:12]} of {about.source}, and the model has "
            f"{ours[:12]}; expected ckpt_path= that parent"
        )
    if about.segmentation != segmentation:
        raise ValueError(f"gate={file}: it was trained for segmentation={about.segmentation}, not {segmentation}")
    if not set(gate.exits) <= set(model.exits):
        raise ValueError(f"gate={file}: it has the exits {gate.exits}, and the model exits={model.exits}")
    gate.beta = beta_of(saved, file, beta, budget)
    return gate.requires_grad_(False)


def read_gate(file: str) -> SavedGate:
    """Read a checkpoint of `GateTraining`; the gate takes raw levels. Raises FileNotFoundError or ValueError."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"gate={file}: no such file, looked in {Path.cwd()}")
    content = load(Path(file), "gate")
    try:
        about, state = GateCheckpoint.from_dict(content["hyper_parameters"]["gate"]), content["state_dict"]
        TARGETS[about.target]
        gate = Gate(about.dim, about.exits, about.inputs, about.hidden, first_exit=about.first_exit)
        check_tensors(state, gate, TARGETS[about.target].kept)
        gate.load_state_dict({name: state[f"gate.{name}"] for name in gate.state_dict()})
        gate.absorb(state["mean"], state["std"])
        gate.transform(*Lines(about.slope, about.offset).matrix())
        rows = Rows(*(state.get(f"holdout_{name}", torch.empty(0, len(gate.exits))) for name in Rows._fields))
        return SavedGate(gate, about, rows, content["hyper_parameters"].get("table", {}))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ValueError(
            f"gate={file}: no checkpoint of a gate, {reason}; python -m src.train +experiment=eco_gate_coco trains one"
        ) from error


def check_tensors(state: Mapping[str, Tensor], gate: Gate, kept: Sequence[str]) -> None:
    """Raise ValueError unless a checkpoint has finite tensors of the names and shapes of this gate."""
    moments, holdout = (sum(gate.widths),), (len(state["holdout_scores"]), len(gate.exits))
    expected = {f"gate.{name}": tuple(value.shape) for name, value in gate.state_dict().items()}
    expected |= {"mean": moments, "std": moments} | {f"holdout_{name}": holdout for name in kept}
    if {name: tuple(value.shape) for name, value in state.items()} != expected:
        raise ValueError("tensors of other names or shapes")
    if not all(value.isfinite().all() for value in state.values()):
        raise ValueError("tensors that are not finite")
    if not (state["std"] > 0).all():
        raise ValueError("a standard deviation that is not above 0")


def beta_of(saved: SavedGate, file: str, beta: float | None, budget: Budget | None) -> float:
    """Return the price of a layer, which is subtracted from the scores; beta itself if the scores are qualities.

    A budget of every single image leaves the price as it is: the gate chooses among the exits within it.
    """
    trained, target, budget = saved.about.beta, TARGETS[saved.about.target], of_mean(budget)
    if not target.beta_when_run:
        other = None if beta == trained else beta
        refuse(f"beta={trained:g} is fixed by the training of gate={file}", other, budget)
        return 0.0
    if budget is not None:
        expect_one(beta=beta, **{budget.setting: budget.limit})
    if beta is None and budget is None:
        return saved.about.price
    return target.price(saved.rows, saved.gate.exits, trained if beta is None else beta, budget).of_score


def of_mean(budget: Budget | None) -> Budget | None:
    """Return a budget of the mean over images, from which a price follows; None for one of every image."""
    return None if budget is None or budget.per_image else budget


def refuse(why: str, beta: float | None, budget: Budget | None) -> None:
    """Raise ValueError for either that has a value."""
    for name, value in (("beta", beta), *([] if budget is None else [(budget.setting, budget.limit)])):
        if value is not None:
            raise ValueError(f"{name}={value:g}: {why}; expected null")
