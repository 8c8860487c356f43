"""A trained model whose gate chooses the exit of every image (ECO-M2F, inference), scored by what it answers there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from src.metrics.exit_choice import beta_for_budget
from src.models.gate import Gate
from src.models.mask2former import Mask2Former
from src.models.transformer_decoder import Prediction
from src.records.scores import SHARE
from src.tasks.gate_training import TARGETS, Target
from src.tasks.segmentation import Segmentation
from src.weights.checkpoint import fingerprint
from src.weights.files import load

OWN = "own"


class GatedEvaluation(Segmentation):
    """Scored as one model, each image at the exit that the gate chooses; without a gate, at every exit.

    Args:
        gate: a checkpoint of `GateTraining`; own: the gate that the model's weights have; null: none.
        beta: what an encoder layer must bring in quality, of gates that predict qualities; null: as in training.
        budget_gflops: instead of beta, the mean cost to keep to.
        others: as `Segmentation`.
    """

    def __init__(
        self, *, gate: str | None = None, beta: float | None = None, budget_gflops: float | None = None, **others: Any
    ):
        super().__init__(**others)
        if gate in (None, OWN):
            check_own(self.model, gate, beta, budget_gflops)
        else:
            self.model.gate = load_gate(str(gate), self.model, beta, budget_gflops, self.segmentation)
        self.gated = gate is not None
        if self.gated:
            assert self.model.gate is not None
            self.score("gate")
            names = ("depth", *(f"{SHARE}{depth}" for depth in self.model.gate.exits))
            self.means: Any = nn.ModuleDict({name: MeanMetric() for name in names})

    def on_fit_start(self) -> None:
        """Refuse to train."""
        raise ValueError("task=gated scores what is trained: python -m src.evaluate, not src.train")

    def rows(self, images: Tensor) -> dict[str, tuple[Prediction, list[int]]]:
        """The last prediction and the depth (B,) of each image, where the gate let it leave."""
        if not self.gated:
            return super().rows(images)
        predictions, depths = self.model.leave(images)
        return {"gate": (predictions[-1], depths)}

    def ways(self) -> dict[str, Callable[[Tensor], Any]]:
        """What makes the answer to images alone: the model left at each exit, and where the gate says."""
        return super().ways() | ({"gate": self.model.leave} if self.gated else {})

    def validation_step(self, batch: Any, batch_index: int) -> dict[str, Any]:
        """Score some images; returns their answers, and what each cost in GMAC at its own size."""
        outputs = super().validation_step(batch, batch_index)
        if not self.gated:
            return outputs
        exits = [answer.exit for answer in outputs["answers"]]
        for name, mean in self.means.items():
            of_images = exits if name == "depth" else [float(name == f"{SHARE}{depth}") for depth in exits]
            mean.update(torch.tensor(of_images, dtype=torch.float32, device=self.device))
        return {**outputs, "gflops": [answer.gflops for answer in outputs["answers"]]}

    def on_validation_epoch_end(self) -> None:
        """Log `val/pq/gate`, and with it the mean depth and the share of images at every exit."""
        super().on_validation_epoch_end()
        if self.gated:
            self.log_dict({f"val/{name}/gate": mean.compute() for name, mean in self.means.items()})
            self.log("val/beta/gate", self.model.gate.beta)  # type: ignore[union-attr]  # that is taken off while running
            for mean in self.means.values():
                mean.reset()


class Saved(NamedTuple):
    """What the checkpoint of a gate holds."""

    gate: Gate
    target: Target
    beta: float  # of its training
    segmentation: str
    parent: str  # fingerprint of the weights that it was trained for
    source: str  # where these lay
    scores: Tensor  # (N, E) predicted on the holdout, of gates that predict qualities
    cost: Tensor  # (N, E) GMAC, there


def load_gate(
    file: str,
    model: Mask2Former,
    beta: float | None = None,
    budget_gflops: float | None = None,
    segmentation: str = "panoptic",
) -> Gate:
    """A trained gate, for a model and what it answers: panoptic, instance or semantic.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no gate, one of another parent, or a beta or budget that it cannot have.
    """
    saved, found = read_gate(file), fingerprint(model)
    if saved.parent != found:
        raise ValueError(
            f"gate={file}: it was trained for the weights {saved.parent[:12]} of {saved.source}, and the model has "
            f"{found[:12]}; expected ckpt_path= that parent"
        )
    if saved.segmentation != segmentation:
        raise ValueError(f"gate={file}: it was trained for segmentation={saved.segmentation}, not {segmentation}")
    if not set(saved.gate.exits) <= set(model.exits):
        raise ValueError(f"gate={file}: it has the exits {saved.gate.exits}, and the model exits={model.exits}")
    saved.gate.beta = beta_of(saved, file, beta, budget_gflops)
    return saved.gate.requires_grad_(False)


def read_gate(file: str) -> Saved:
    """What a checkpoint of `Gating` holds, the gate as it takes the levels of a model."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"gate={file}: no such file, looked in {Path.cwd()}")
    content = load(Path(file), "gate")
    try:
        about, state = content["hyper_parameters"]["gate"], content["state_dict"]
        gate = Gate(about["dim"], about["exits"], about["inputs"], about["hidden"])
        moments, holdout = (about["dim"] * len(gate.inputs),), (len(state["holdout_scores"]), len(gate.exits))
        shapes = {f"gate.{name}": tuple(value.shape) for name, value in gate.state_dict().items()}
        shapes |= {"mean": moments, "std": moments, "holdout_scores": holdout, "holdout_cost": holdout}
        if {name: tuple(value.shape) for name, value in state.items()} != shapes:
            raise ValueError("tensors of other names or shapes")
        if not all(value.isfinite().all() for value in state.values()) or not (state["std"] > 0).all():
            raise ValueError("numbers that no training leaves")
        gate.load_state_dict({name: state[f"gate.{name}"] for name in gate.state_dict()})
        gate.absorb(state["mean"], state["std"])
        kept = state["holdout_scores"], state["holdout_cost"]
        words = str(about["segmentation"]), str(about["parent"]), str(about["source"])
        return Saved(gate, TARGETS[about["target"]], float(about["beta"]), *words, *kept)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ValueError(
            f"gate={file}: no checkpoint of a gate, {reason}; python -m src.train +experiment=eco_gate_coco trains one"
        ) from error


def beta_of(saved: Saved, file: str, beta: float | None, budget_gflops: float | None) -> float:
    """What to take off the scores for every layer."""
    if not saved.target.beta_when_run:
        other = None if beta == saved.beta else beta
        refuse(other, budget_gflops, f"beta={saved.beta:g} is fixed by the training of gate={file}")
        return 0.0
    if budget_gflops is None:
        return saved.beta if beta is None else beta
    if beta is not None:
        raise ValueError(f"beta={beta:g}, budget_gflops={budget_gflops:g}: expected one of them")
    return beta_for_budget(saved.scores, saved.cost, saved.gate.exits, budget_gflops)


def check_own(model: Mask2Former, gate: str | None, beta: float | None, budget_gflops: float | None) -> None:
    """Refuse what needs another gate than the model has."""
    if gate is None:
        refuse(beta, budget_gflops, "nothing chooses an exit without gate=FILE")
    elif model.gate is None:
        raise ValueError(f"gate={OWN}: the weights have no gate, expected the checkpoint of one")
    else:
        refuse(beta, budget_gflops, f"gate={OWN} is of a beta fixed by training")


def refuse(beta: float | None, budget_gflops: float | None, why: str) -> None:
    """Raise ValueError for either that has a value."""
    for name, value in (("beta", beta), ("budget_gflops", budget_gflops)):
        if value is not None:
            raise ValueError(f"{name}={value:g}: {why}; expected null")
