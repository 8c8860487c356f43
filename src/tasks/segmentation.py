"""Mask2Former as a Lightning task: what is the loss, what is scored, what is optimised."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from src.losses.criterion import SetCriterion
from src.metrics.cost import ImageCost
from src.models.mask2former import Mask2Former
from src.models.postprocess import Frame, Postprocess
from src.models.transformer_decoder import Prediction
from src.tasks.bad_step import keep_bad_step
from src.tasks.batches import like_sized, stack_segments
from src.tasks.evaluation import Evaluation, ImagePrediction
from src.tasks.progress import set_progress
from src.weights.checkpoint import check_state

ALPHA: dict[str, Callable[[int], float]] = {  # weight of the loss of exit k (ECO-M2F, step A)
    "1": lambda k: 1.0,
    "k": lambda k: float(k),
    "k*k/10": lambda k: k * k / 10,
}


class Segmentation(lightning.LightningModule):
    """Panoptic, instance or semantic segmentation, trained and scored at every exit of the model.

    Args:
        model, criterion: take the number of classes. optimizer: takes the model. scheduler: takes the optimizer.
        postprocess: takes which classes are things.
        categories: of the data set, with `id`, `name` and `isthing`, in the order of the class indices.
        instance_truth: an annotation file that AP is scored against instead of the data set's own segments.
        exits_per_step: how many exits, drawn anew, a training step supervises; `all`: every one, from one encoder pass.
        alpha: weight of an exit's loss by its depth k: 1, k or k*k/10.
        patience: after how many steps in a row without finite costs and gradients training stops.
        seed: of what is left to chance in a training step: exits, points of the losses and paths dropped.
    """

    def __init__(
        self,
        model: Callable[..., Mask2Former],
        criterion: Callable[..., SetCriterion],
        postprocess: Callable[..., Postprocess],
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        scheduler: Callable[[torch.optim.Optimizer], Any],
        categories: Sequence[Any],
        segmentation: str = "panoptic",
        instance_truth: str | None = None,
        exits_per_step: int | str = "all",
        alpha: int | str = 1,
        patience: int = 10,
        seed: int = 0,
    ):
        super().__init__()
        isthing = [category.isthing for category in categories]
        self.model = model(num_classes=len(categories))
        self.criterion = criterion(num_classes=len(categories))
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.make_evaluation = partial(Evaluation, segmentation, isthing, postprocess(isthing=isthing))
        self.instance_truth = instance_truth
        if instance_truth is not None and segmentation == "semantic":
            raise ValueError(f"task.instance_truth={instance_truth}: segmentation=semantic has no AP; expected null")
        self.score(*(f"exit{depth}" for depth in self.model.exits))
        self.cost_of = ImageCost(self.model, self.model.exits, segmentation)
        self.categories, self.segmentation = list(categories), segmentation
        self.by_class: dict[str, dict[str, dict[str, float]]] = {}  # of the last validation, by row, class and score
        self.num_drawn = len(self.model.exits) if exits_per_step == "all" else int(exits_per_step)
        if not 1 <= self.num_drawn <= len(self.model.exits):
            raise ValueError(
                f"task.exits_per_step={exits_per_step}: the model has the exits {self.model.exits}, expected 1 to "
                f"{len(self.model.exits)}, or all"
            )
        self.alpha = ALPHA[str(alpha)]
        self.patience = patience
        self.seed = seed
        self.parts: list[tuple[Any, Tensor]] = []  # of the step that runs: batches, and their losses
        self.num_bad_costs = 0  # since the last step
        self.num_bad_steps = 0  # in all
        self.bad_streak = 0  # in a row

    def score(self, *rows: str) -> None:
        """Score so many rows: exits, or what a gate chooses."""
        self.evaluations: Any = nn.ModuleDict({row: self.make_evaluation() for row in rows})
        self.image_gflops: Any = nn.ModuleDict({row: MeanMetric() for row in rows})

    def forward(self, images: Sequence[Tensor]) -> dict[int, Any]:
        """Images (3, h, w) RGB in 0..255 to predictions by exit, see `Mask2Former`."""
        return self.model(self.model.preprocess(images))

    def setup(self, stage: str) -> None:
        """Read what is scored against, so that what does not fit the data is said before anything runs."""
        if self.instance_truth is None or stage not in ("fit", "validate"):
            return
        truth = self.trainer.datamodule.instance_truth(self.instance_truth)  # type: ignore[attr-defined]
        for evaluation in self.evaluations.values():
            evaluation.take_truth(truth)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume with another model, in one line; else go on from the step, by which the data are known."""
        check_state(checkpoint["state_dict"], self.state_dict(), f"ckpt_path={self.trainer.ckpt_path}")
        set_progress(checkpoint, self.trainer.accumulate_grad_batches)

    # ---- training

    def on_train_start(self) -> None:
        """Refuse to train where a resumed schedule has come to its end: every further step would change nothing."""
        end = getattr(self.lr_schedulers(), "total_iters", None)
        if end is not None and end < self.trainer.max_steps:
            raise ValueError(
                f"trainer.max_steps={self.trainer.max_steps}: the learning rate reaches zero at step {end}, as the "
                "checkpoint was trained; to train longer, start from model.weights=FILE instead of ckpt_path=FILE"
            )

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        """Draw what is left to chance from (seed, step, rank) alone, so that a resumed run repeats an unbroken one."""
        part = batch_index % self.trainer.accumulate_grad_batches  # of a step; batches may count anew after resuming
        self.leave_to_chance(self.global_step, part, self.global_rank)

    def leave_to_chance(self, step: int, part: int, rank: int) -> None:
        """Have what is random in a part of a step follow from its place alone."""
        place = np.random.SeedSequence((self.seed, step, part, rank))
        torch.manual_seed(int(place.generate_state(1)[0]))

    def draw_exits(self, step: int) -> list[int]:
        """Exits to supervise, uniformly drawn; those of a step are the same on every process, from (seed, step)."""
        chance = np.random.default_rng((self.seed, step))
        return sorted(chance.choice(self.model.exits, self.num_drawn, replace=False).tolist())

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """The loss summed over decoder layers and the exits drawn, each exit by its weight."""
        total, losses, num_bad = self.loss(batch, self.global_step)
        self.parts.append((batch, total.detach()))
        self.num_bad_costs += num_bad
        self.log("train/loss", total, prog_bar=True, batch_size=len(batch.images))
        for name, last in {place.split("/")[0]: place for place in losses}.items():  # where the answer comes from
            self.log(f"train/{name}", losses[last], batch_size=len(batch.images))
        self.log_layers(losses)
        return total

    def log_layers(self, losses: dict[str, Tensor]) -> None:
        """Tell loggers each part of the loss at each decoder layer, at steps that they write: there are many.

        Not by `self.log`, which tells what it was told last again: of exits that this step did not draw, too.
        """
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or (self.global_step + 1) % every or self.trainer.fit_loop.epoch_loop._should_accumulate():
            return
        for logger in self.loggers:
            logger.log_metrics({f"layers/{place}": loss.item() for place, loss in losses.items()}, self.global_step)

    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, Tensor], int]:
        """The loss of a batch at a step, its parts {"class/exit3/layer0": ...}, and how many costs were not finite."""
        images = self.model.preprocess(batch.images)
        labels = [truth.labels for truth in batch.truths]
        segments = stack_segments([truth.segments for truth in batch.truths], images.shape[-2:])
        exits = self.draw_exits(step)
        by_exit = self.model(images, exits)
        predictions = [prediction for layers in by_exit.values() for prediction in layers]
        losses, num_bad = self.criterion(predictions, labels, segments)
        weights = images.new_tensor([self.alpha(depth) for depth, layers in by_exit.items() for _ in layers])
        by_layer = torch.stack(list(losses.values())).unflatten(0, (len(weights), -1)).sum(1)  # class, mask and dice
        total = (by_layer * weights).sum() + self.nothing_of_layers_after(exits[-1])
        if num_bad:  # gradients carry it to every process, so that all of them skip the step
            total = total * float("nan")
        places = [f"exit{depth}/layer{layer}" for depth, layers in by_exit.items() for layer in range(len(layers))]
        parts = {
            f"{part}/{place}": losses[f"{part}/layer{number}"]
            for part in ("class", "mask", "dice")
            for number, place in enumerate(places)
        }
        return total, parts, num_bad

    def nothing_of_layers_after(self, depth: int) -> Tensor | int:
        """Zero, made of the layers that did not run, for several processes wait for the gradient of every parameter."""
        rest = self.model.pixel_decoder.encoder.layers[depth : self.model.exits[-1]]
        return sum(0 * parameter.sum() for layer in rest for parameter in layer.parameters())

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of all gradients together; a step whose costs or gradients are not finite changes nothing."""
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
        """Optimizer, and a schedule that moves with every optimiser step."""
        optimizer = self.make_optimizer(self.model)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "step"},
        }

    # ---- evaluation

    def rows(self, images: Tensor) -> dict[str, tuple[Prediction, list[int]]]:
        """What is scored of a batch: by the name of an exit, the last prediction and the depth (B,) of each image."""
        return {f"exit{depth}": (layers[-1], [depth] * len(images)) for depth, layers in self.model(images).items()}

    def ways(self) -> dict[str, Callable[[Tensor], Any]]:
        """What makes the answer to images alone: by the name of an exit, the model left there."""
        return {f"exit{depth}": partial(self.model, exits=[depth]) for depth in self.model.exits}

    def validation_step(self, batch: Any, batch_index: int) -> dict[str, Any]:
        """Score every exit; returns what the deepest one makes of each image."""
        answers: dict[int, ImagePrediction] = {}
        for places in like_sized(batch.images):
            images = self.model.preprocess([batch.images[place] for place in places])
            for name, (prediction, depths) in self.rows(images).items():
                for row, (place, depth) in enumerate(zip(places, depths, strict=True)):
                    truth, size = batch.truths[place], batch.images[place].shape[-2:]
                    frame = Frame(images.shape[-2:], size, truth.segments.shape[-2:])
                    answer = self.evaluations[name].answer(prediction, row, frame)
                    self.evaluations[name].update(answer, truth, batch.image_ids[place])
                    gflops = self.cost(batch, place, depth)
                    self.image_gflops[name].update(gflops)
                    answers[place] = answer._replace(exit=depth, gflops=gflops)
        return {"answers": [answers[place] for place in range(len(batch.images))]}

    @property
    def evaluation(self) -> Any:
        """What answers for every exit alike."""
        return next(iter(self.evaluations.values()))

    def cost(self, batch: Any, place: int, depth: int) -> float:
        """What an image costs at an exit, at its own size, in GMAC."""
        pixels = batch.truths[place].segments[0].numel()
        return self.cost_of(batch.images[place].shape[-2:], pixels)[self.cost_of.exits.index(depth)]

    @torch.no_grad()
    def answers(self, image: Tensor, size: Sequence[int]) -> list[ImagePrediction]:
        """What every exit makes of an image (3, h, w) RGB in 0..255, at a size (H, W), that of the original."""
        images = self.model.preprocess([image])
        frame = Frame(images.shape[-2:], image.shape[-2:], size)
        by_exit = self.model(images)
        return [self.evaluation.answer(layers[-1], 0, frame)._replace(exit=depth) for depth, layers in by_exit.items()]

    def score_names(self) -> list[str]:
        """What checkpoints and early stopping can go by: the scores of a validation, and the loss."""
        rows, names = list(self.evaluations), self.evaluation.names
        by_row = [f"val/{name}/{row}" for row in rows for name in (*names, "image_gflops")]
        return ["val/quality", *(f"val/{name}" for name in names), *by_row, "train/loss"]

    def on_validation_epoch_end(self) -> None:
        """Log `val/pq/exit4` and so on; `val/pq` is the deepest exit, `val/quality` its score that counts.

        What each class has is kept in `by_class`: hundreds of numbers, too many to log.
        """
        names = class_names(self.categories)
        for name, evaluation in self.evaluations.items():
            scores = evaluation.compute()
            self.by_class[name] = {names[index]: values for index, values in evaluation.by_class().items()}
            evaluation.reset()
            self.log_dict({f"val/{score}/{name}": value for score, value in scores.items()})
            self.log(f"val/image_gflops/{name}", self.image_gflops[name].compute())
            self.image_gflops[name].reset()
        self.log_dict({f"val/{score}": value for score, value in scores.items()})
        self.log("val/quality", scores[evaluation.quality], prog_bar=True)


def class_names(categories: Sequence[Any]) -> list[str]:
    """What classes are called; those that share a name with their id behind it."""
    names = [category.name for category in categories]
    return [
        f"{name} ({category.id})" if names.count(name) > 1 else name
        for name, category in zip(names, categories, strict=True)
    ]
