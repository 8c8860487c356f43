"""Training as a Lightning task: the loss, the optimiser, and the handling of non-finite steps."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from src.losses.base import Criterion
from src.tasks.bad_step import keep_bad_step
from src.tasks.base import BaseTask
from src.tasks.batches import sizes_of
from src.tasks.progress import set_progress

if TYPE_CHECKING:
    from src.data.targets import Batch

ALPHA: dict[str, Callable[[int], float]] = {  # weight of the loss of exit k (ECO-M2F, step A)
    "1": lambda k: 1.0,
    "k": lambda k: float(k),
    "k*k/10": lambda k: k * k / 10,
}


class Segmentation(BaseTask):
    """Segmentation or detection, trained and scored at every exit of the model.

    Args:
        criterion: takes the number of classes. optimizer: takes the model. scheduler: takes the optimizer.
        exits_per_step: number of exits that a training step supervises, drawn for each step; `all`: every exit, from
            one encoder pass.
        alpha: weight of an exit's loss by its depth k: 1, k or k*k/10.
        distil: weight of the divergence of shallower exits from the deepest one, beside their loss. Above 0, exits are
            drawn among the shallower ones, and the deepest joins them.
        patience: training stops after this many non-finite steps in a row.
        seed: of all that is random in a training step: exits, points of the losses and dropped paths.
        others: as `BaseTask`.
    """

    def __init__(
        self,
        *,
        criterion: Callable[..., Criterion],
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        scheduler: Callable[[torch.optim.Optimizer], Any],
        exits_per_step: int | str = "all",
        alpha: int | str = 1,
        distil: float = 0.0,
        patience: int = 10,
        seed: int = 0,
        **others: Any,
    ):
        super().__init__(**others)
        self.criterion = criterion(num_classes=len(self.categories))
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.num_drawn = len(self.model.exits) if exits_per_step == "all" else int(exits_per_step)
        if not 1 <= self.num_drawn <= len(self.model.exits):
            raise ValueError(
                f"task.exits_per_step={exits_per_step}: the model has the exits {self.model.exits}, expected 1 to "
                f"{len(self.model.exits)}, or all"
            )
        self.alpha = ALPHA[str(alpha)]
        if not 0 <= distil < math.inf:
            raise ValueError(f"task.distil={distil}: expected a number, 0 or more")
        if distil and len(self.model.exits) == 1:
            raise ValueError(
                f"task.distil={distil:g}: the model has the single exit {self.model.exits[0]}, expected several exits, "
                "or task.distil=0"
            )
        self.distil, self.distillation = distil, self.criterion.distillation() if distil else None
        self.patience = patience
        self.seed = seed
        self.parts: list[tuple[Any, Tensor]] = []  # batches of the current step, and their losses
        self.num_bad_costs = 0  # non-finite costs since the last step
        self.num_bad_steps = 0  # in total
        self.bad_streak = 0  # in a row

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume after the checkpoint's step. Raises ValueError for the checkpoint of another model."""
        super().on_load_checkpoint(checkpoint)
        set_progress(checkpoint, self.trainer.accumulate_grad_batches)

    def on_train_start(self) -> None:
        """Raise ValueError if a resumed schedule ends before `max_steps`: a learning rate of zero trains nothing."""
        end = getattr(self.lr_schedulers(), "total_iters", None)
        if end is not None and end < self.trainer.max_steps:
            raise ValueError(
                f"trainer.max_steps={self.trainer.max_steps}: the learning rate reaches zero at step {end}, as the "
                "checkpoint has it; to train longer, start from model.weights=FILE instead of ckpt_path=FILE"
            )

    def on_train_batch_start(self, batch: "Batch", batch_index: int) -> None:
        """Seed torch from (seed, step, part, rank), so that a resumed run repeats an uninterrupted one."""
        part = batch_index % self.trainer.accumulate_grad_batches  # in its step; resuming may restart batch_index
        self.seed_step(self.global_step, part, self.global_rank)

    def seed_step(self, step: int, part: int, rank: int) -> None:
        """Seed torch for one batch of a step."""
        place = np.random.SeedSequence((self.seed, step, part, rank))
        torch.manual_seed(int(place.generate_state(1)[0]))

    def draw_exits(self, step: int) -> list[int]:
        """Draw the exits to supervise, uniformly; the draw depends on (seed, step) only, so all processes agree.

        With distillation the deepest exit always takes part, and the others are drawn.
        """
        always = self.model.exits[-1:] if self.distil else []
        others = self.model.exits[: len(self.model.exits) - len(always)]
        chance = np.random.default_rng((self.seed, step))
        drawn = chance.choice(others, min(self.num_drawn, len(others)), replace=False).tolist()
        return sorted(drawn) + always

    def training_step(self, batch: "Batch", batch_index: int) -> Tensor:
        """Return the loss: the sum over decoder layers and supervised exits, each exit with its weight."""
        total, losses, num_bad = self.loss(batch, self.global_step)
        self.parts.append((batch, total.detach()))
        self.num_bad_costs += num_bad
        self.log("train/loss", total, prog_bar=True, batch_size=len(batch.images))
        for name, last in {place.split("/")[0]: place for place in losses}.items():  # the last layer predicts
            self.log(f"train/{name}", losses[last], batch_size=len(batch.images))
        self.log_layers(losses)
        return total

    def log_layers(self, losses: dict[str, Tensor]) -> None:
        """Log each part of the loss at each decoder layer, at the steps that loggers write.

        `self.log` would repeat old values of the exits that this step did not draw.
        """
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or (self.global_step + 1) % every or self.trainer.fit_loop.epoch_loop._should_accumulate():
            return
        for logger in self.loggers:
            logger.log_metrics({f"layers/{place}": loss.item() for place, loss in losses.items()}, self.global_step)

    def loss(self, batch: "Batch", step: int) -> tuple[Tensor, dict[str, Tensor], int]:
        """Return the loss of a batch, its parts {"class/exit3/layer0": ...}, and the number of non-finite costs."""
        images = self.model.preprocess(batch.images)
        exits = self.draw_exits(step)
        by_exit = self.model(images, exits, sizes=sizes_of(batch.images), truths=batch.truths)
        predictions = [prediction for layers in by_exit.values() for prediction in layers]
        losses, num_bad = self.criterion(predictions, batch.truths, images.shape[-2:])
        weights = images.new_tensor([self.alpha(depth) for depth, layers in by_exit.items() for _ in layers])
        names = list(self.criterion.weights)  # of the parts
        by_part = torch.stack([losses[f"{part}/layer{number}"] for number in range(len(weights)) for part in names])
        total = (by_part.unflatten(0, (len(weights), -1)).sum(1) * weights).sum() + self.zero_of_layers_after(exits[-1])
        if num_bad:  # the gradients become NaN in every process, so that all of them skip the step
            total = total * float("nan")
        places = [f"exit{depth}/layer{layer}" for depth, layers in by_exit.items() for layer in range(len(layers))]
        parts = {
            f"{part}/{place}": losses[f"{part}/layer{number}"] for part in names for number, place in enumerate(places)
        }
        if self.distil:
            divergence, more = self.divergence(by_exit)
            total, parts = total + self.distil * divergence, parts | more
        return total, parts, num_bad

    def divergence(self, by_exit: dict[int, list[Any]]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return how far the other exits are from the deepest one, summed like the loss, and the parts of that sum."""
        assert self.distillation is not None
        *shallower, deepest = by_exit
        losses = {
            (depth, place): loss
            for depth in shallower
            for place, loss in self.distillation(by_exit[depth], by_exit[deepest]).items()
        }
        total = torch.stack([self.alpha(depth) * loss for (depth, _), loss in losses.items()]).sum()
        return total, {place.replace("/", f"/exit{depth}/"): loss for (depth, place), loss in losses.items()}

    def zero_of_layers_after(self, depth: int) -> Tensor | int:
        """Return a zero that depends on the layers after `depth`: DDP waits for a gradient of every parameter."""
        rest = self.model.pixel_decoder.encoder.layers[depth : self.model.exits[-1]]
        return sum(0 * parameter.sum() for layer in rest for parameter in layer.parameters())

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of all gradients; skip a step whose costs or gradients are not finite.

        Raises FloatingPointError after `patience` such steps in a row.
        """
        norm = nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or float("inf"))
        bad = not norm.isfinite()
        if bad:
            if not self.num_bad_steps:
                keep_bad_step(self, optimizer, self.parts)
            optimizer.zero_grad()
        self.num_bad_steps += bad
        self.bad_streak = self.bad_streak + 1 if bad else 0
        self.log("train/grad_norm", norm)
        self.log("train/non_finite_steps", float(self.num_bad_steps))
        if self.bad_streak >= self.patience:
            raise FloatingPointError(
                f"training diverged: the last {self.bad_streak} steps, up to step {self.global_step}, were not finite "
                f"({self.num_bad_costs} matching costs in the last one); learning rate "
                f"{optimizer.param_groups[0]['lr']:g}, batch {self.hparams.get('batch_size')}, precision "
                f"{self.trainer.precision}: try a smaller lr, a larger batch_size or trainer.precision=32-true"
            )
        self.num_bad_costs = 0
        self.parts.clear()

    def configure_optimizers(self) -> Any:
        """Return the optimiser, and a schedule that advances with every optimiser step."""
        optimizer = self.make_optimizer(self.model)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "step"},
        }
