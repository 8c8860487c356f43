"""The base of all tasks on images: a model, its evaluation, and the names of the logged scores."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import lightning
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from src.metrics.cost import ImageCost
from src.models.model import Model
from src.models.postprocess import Frame
from src.tasks.batches import like_sized, sizes_of
from src.tasks.evaluation import Evaluation, ImagePrediction, check_answers
from src.weights.checkpoint import check_state

if TYPE_CHECKING:
    from src.data.targets import Batch, Category


class BaseTask(lightning.LightningModule):
    """Predicts and scores at every exit of a model; subclasses add training, a gate or prediction.

    Args:
        model: takes the number of classes.
        postprocess: takes a list that says which classes are things.
        categories: of the data set, in the order of the class indices.
        instance_truth: an annotation file that AP is scored against instead of the data set's own segments.
    """

    def __init__(
        self,
        model: Callable[..., Model],
        postprocess: Callable[..., Any],
        categories: "Sequence[Category]",
        segmentation: str = "panoptic",
        instance_truth: str | None = None,
    ):
        super().__init__()
        if instance_truth is not None and segmentation == "semantic":
            raise ValueError(f"task.instance_truth={instance_truth}: segmentation=semantic has no AP; expected null")
        isthing = [category.isthing for category in categories]
        made = postprocess(isthing=isthing)
        check_answers(segmentation, made)  # before weights are read
        self.model = model(num_classes=len(categories))
        self.make_evaluation = partial(Evaluation, segmentation, isthing, made)
        self.instance_truth = instance_truth
        self.score(*(f"exit{depth}" for depth in self.model.exits))
        self.cost_of = ImageCost(self.model, self.model.exits, segmentation)
        self.categories, self.segmentation = list(categories), segmentation
        self.by_class: dict[str, dict[str, dict[str, float]]] = {}  # of the last validation, by row, class and score

    def score(self, *rows: str) -> None:
        """Set the rows that are scored: `exit4` and so on, or `gate`."""
        self.evaluations: Any = nn.ModuleDict({row: self.make_evaluation() for row in rows})
        self.image_gflops: Any = nn.ModuleDict({row: MeanMetric() for row in rows})

    def forward(self, images: Sequence[Tensor]) -> dict[int, Any]:
        """Return predictions by exit, see `Model`, of images (3, h, w) RGB in 0..255."""
        return self.model(self.model.preprocess(images), sizes=sizes_of(images))

    def setup(self, stage: str) -> None:
        """Read `instance_truth`. Raises ValueError for an annotation file that does not fit the data."""
        if self.instance_truth is None or stage not in ("fit", "validate"):
            return
        truth = self.trainer.datamodule.instance_truth(self.instance_truth)  # type: ignore[attr-defined]
        for evaluation in self.evaluations.values():
            evaluation.take_truth(truth)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise ValueError for the checkpoint of another model."""
        check_state(checkpoint["state_dict"], self.state_dict(), f"ckpt_path={self.trainer.ckpt_path}")

    def rows(self, images: Tensor, costs: Sequence[Sequence[float]]) -> dict[str, tuple[Any, list[int]]]:
        """Return for each row that is scored the last prediction of the batch and the depth (B,) of each image.

        Args:
            costs: (B, E), GFLOPs of each image at each of the model's exits.
        """
        by_exit = self.model(images, last_only=True)
        return {f"exit{depth}": (prediction, [depth] * len(images)) for depth, (prediction,) in by_exit.items()}

    def ways(self) -> dict[str, Callable[[Tensor], Any]]:
        """Return for each row a function from preprocessed images to predictions, for timing."""
        return {f"exit{depth}": partial(self.model, exits=[depth], last_only=True) for depth in self.model.exits}

    def validation_step(self, batch: "Batch", batch_index: int) -> dict[str, Any]:
        """Score every exit; return the predictions of the deepest one."""
        answers: dict[int, ImagePrediction] = {}
        for places in like_sized(batch.images, self.model.padded):
            images = self.model.preprocess([batch.images[place] for place in places])
            costs = [self.image_costs(batch, place) for place in places]
            for name, (prediction, depths) in self.rows(images, costs).items():
                for row, (place, depth) in enumerate(zip(places, depths, strict=True)):
                    truth, size = batch.truths[place], batch.images[place].shape[-2:]
                    frame = Frame(images.shape[-2:], size, truth.segments.shape[-2:])
                    answer = self.evaluations[name].answer(prediction, row, frame)
                    self.evaluations[name].update(answer, truth, batch.image_ids[place])
                    gflops = costs[row][self.cost_of.exits.index(depth)]
                    self.image_gflops[name].update(gflops)
                    answers[place] = answer._replace(exit=depth, gflops=gflops)
        return {"answers": [answers[place] for place in range(len(batch.images))]}

    @property
    def evaluation(self) -> Any:
        """The evaluation of the first row; all rows have the same post-processing and score names."""
        return next(iter(self.evaluations.values()))

    def image_costs(self, batch: "Batch", place: int) -> list[float]:
        """Return the GFLOPs of an image at each exit, at the image's own size."""
        return self.cost_of(batch.images[place].shape[-2:], batch.truths[place].segments[0].numel())

    @torch.no_grad()
    def answers(self, image: Tensor, size: Sequence[int]) -> list[ImagePrediction]:
        """Predict an image (3, h, w) RGB in 0..255 at every exit; maps have the original's size (H, W)."""
        images = self.model.preprocess([image])
        frame = Frame(images.shape[-2:], image.shape[-2:], size)
        by_exit = self.model(images, last_only=True)
        return [self.evaluation.answer(last, 0, frame)._replace(exit=depth) for depth, (last,) in by_exit.items()]

    def score_names(self) -> list[str]:
        """Return the scores that checkpoints and early stopping may monitor."""
        rows, names = list(self.evaluations), self.evaluation.names
        by_row = [f"val/{name}/{row}" for row in rows for name in (*names, "image_gflops")]
        return ["val/quality", *(f"val/{name}" for name in names), *by_row, "train/loss"]

    def on_validation_epoch_end(self) -> None:
        """Log `val/pq/exit4` and so on, `val/pq` of the deepest exit, and `val/quality`, its main score.

        Scores by class are kept in `by_class`: hundreds of numbers, too many to log.
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


class EvaluationTask(BaseTask):
    """A task that does not train. It accepts the settings of training, which a checkpoint brings along, unused.

    Args:
        criterion, optimizer, scheduler, exits_per_step, alpha, distil, patience, seed: as `Segmentation`, unused.
        others: as `BaseTask`.
    """

    refusal: str  # the error message of an attempt to train

    def __init__(
        self,
        *,
        criterion: Any = None,
        optimizer: Any = None,
        scheduler: Any = None,
        exits_per_step: Any = None,
        alpha: Any = None,
        distil: Any = None,
        patience: Any = None,
        seed: Any = None,
        **others: Any,
    ):
        super().__init__(**others)

    def training_step(self, *_: Any) -> NoReturn:
        """Refuse to train."""
        raise ValueError(self.refusal)

    def configure_optimizers(self) -> NoReturn:
        """Refuse to train: Lightning calls this before the first step."""
        raise ValueError(self.refusal)


def class_names(categories: "Sequence[Category]") -> list[str]:
    """Return the names of classes; a name that several share gets the id appended."""
    names = [category.name for category in categories]
    return [
        f"{name} ({category.id})" if names.count(name) > 1 else name
        for name, category in zip(names, categories, strict=True)
    ]
