"""The Lightning data module of segmentation: training, validation and labelling of exit tables."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset

from src.data.checks.usable import glance, opened, sound
from src.data.formats.annotations import image_sizes
from src.data.instance_truth import InstanceTruth
from src.data.problems import OF_NO_IMAGE, Problem, differing_categories, refuse
from src.data.samplers import StepSampler, share
from src.data.scenes import Scenes, Transform, View
from src.data.targets import OF_THINGS, SEGMENTATIONS, Category, Sample, collate
from src.data.transforms import ResizeShortestEdge
from src.exit_table.table import TableInfo
from src.exit_table.writer import ExitTableWriter
from src.system.signals import leave_signals_to_parent


class SegmentationData(LightningDataModule):
    """Training scenes transformed by `augment`; scenes to validate or to label transformed by `resize`.

    `train` and `val` create their scenes on first use, so validation needs no training files. Training is one
    stream of samples (see StepSampler), max_steps global batches long, where a global batch is batch_size x
    accumulate_grad_batches x ranks.
    """

    trainer: Trainer  # set by Lightning before any hook runs

    def __init__(
        self,
        train: Callable[[], Scenes],
        val: Callable[[], Scenes],
        augment: Transform,
        resize: ResizeShortestEdge,
        segmentation: str,  # of training targets: panoptic, instance, semantic or boxes
        batch_size: int,  # per device
        eval_batch_size: int,
        num_workers: int,
        seed: int,
        root: str | None = None,  # the folder that `train` and `val` point into
        num_classes: int | None = None,  # of the benchmark; used only if the files are absent
        on_flaw: str = "refuse",  # images with problems: refuse or skip
    ) -> None:
        super().__init__()
        if on_flaw not in ("refuse", "skip"):
            raise ValueError(f"data.on_flaw={on_flaw}: expected refuse or skip")
        self.on_flaw = on_flaw
        self.problems: list[tuple[str, Problem]] = []  # by split; of scenes that were opened
        self.num_skipped: dict[str, int] = {}  # by split
        if segmentation not in SEGMENTATIONS:
            raise ValueError(f"segmentation is {segmentation!r}, expected one of {', '.join(SEGMENTATIONS)}")
        self.root, self._num_classes = root, num_classes
        self.train, self.val, self.augment, self.resize = train, val, augment, resize
        self.segmentation, self.seed = segmentation, seed
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers

    @cached_property
    def val_scenes(self) -> Scenes:
        """The validation scenes. Raises ValueError if segmentation is of things and no class is one."""
        scenes = self._open(self.val, "val")
        if self.segmentation in OF_THINGS and not any(category.isthing for category in scenes.categories):
            raise ValueError(
                f"segmentation={self.segmentation}: none of the data's {len(scenes.categories)} classes is a thing, "
                "expected semantic or panoptic"
            )
        return scenes

    @cached_property
    def train_scenes(self) -> Scenes:
        """The training scenes. Raises DataError if their categories are not those of the validation scenes."""
        scenes = self._open(self.train, "train")
        refuse(differing_categories(scenes.categories, self.categories))
        return scenes

    def _open(self, make: Callable[[], Scenes], split: str) -> Scenes:
        """Create scenes and collect their problems; with on_flaw=skip, leave out images that have any."""
        problems: list[Problem] = []

        def report(new: Iterable[Problem]) -> None:
            problems.extend(new)
            refuse(problem for problem in problems if self.on_flaw == "refuse" or problem.kind in OF_NO_IMAGE)

        scenes, num_skipped = opened(make, report, self.segmentation), 0
        if self.on_flaw == "skip":
            scenes, flaws, num_skipped = sound(scenes, split, self.num_workers)
            problems += flaws
        problems += glance(scenes)
        self.problems += [(split, problem) for problem in dict.fromkeys(problems)]
        self.num_skipped[split] = num_skipped
        return scenes

    @property
    def categories(self) -> list[Category]:
        """The classes, in the order of their indices."""
        return self.val_scenes.categories

    def instance_truth(self, file: str) -> InstanceTruth:
        """Read the ground truth of AP from a separate file. Raises as InstanceTruth does."""
        truth = InstanceTruth(file, self.categories, self.val_scenes, masks=self.segmentation != "boxes")
        self.problems += [("val", problem) for problem in truth.problems]
        return truth

    @property
    def for_task(self) -> dict[str, Any]:
        """Keyword arguments of the task."""
        return {"categories": self.categories}

    @property
    def for_checkpoint(self) -> dict[str, Any]:
        """Hyperparameters that describe the data in a checkpoint."""
        return {"categories": [category._asdict() for category in self.categories]}

    @property
    def num_classes(self) -> int:
        """The number of classes; that of the benchmark if the files are absent."""
        try:
            return len(self.categories)
        except FileNotFoundError:
            if self._num_classes is None:
                raise
            return self._num_classes

    def views(self, annotation_file: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Return (height, width) after and before `resize` of every image in a COCO JSON file."""
        if not Path(annotation_file).is_file():
            raise FileNotFoundError(
                f"sizes={annotation_file}: no such file; expected a COCO annotation file or [[height, width], ...]"
            )
        return [(self.resize.resized(*size), size) for size in image_sizes(Path(annotation_file))]

    def setup(self, stage: str) -> None:
        """Create the scenes of a stage, so that missing files raise before anything runs."""
        _ = self.train_scenes if stage == "fit" else self.val_scenes
        if stage == "fit" and self.trainer.max_steps == -1:
            # The sampler and the schedulers count steps: convert epochs to steps here, once.
            epochs = self.trainer.max_epochs
            if epochs is None or epochs < 0:
                raise ValueError("training needs an end: give the trainer max_steps or max_epochs")
            steps = max(epochs * len(self.train_scenes) // self.global_batch_size, 1)
            self.trainer.fit_loop.epoch_loop.max_steps = steps

    @property
    def global_batch_size(self) -> int:
        """Samples per optimiser step."""
        return self.batch_size * self.trainer.accumulate_grad_batches * self.trainer.world_size

    def train_dataloader(self) -> DataLoader[Sample]:
        # Lightning warns about loaders without a state; here the step determines the samples.
        warnings.filterwarnings("ignore", message=".*dataloader is not resumable")
        view = View(self.train_scenes, self.augment, self.seed, self.segmentation)
        sampler = StepSampler(
            view,
            num_draws=self.trainer.max_steps * self.global_batch_size,
            start=lambda: self.trainer.global_step * self.global_batch_size,
            seed=self.seed,
            rank=self.trainer.global_rank,
            num_ranks=self.trainer.world_size,
        )
        return DataLoader(  # by keyword, because Lightning re-creates loaders from their arguments
            dataset=view,
            sampler=sampler,
            batch_size=self.batch_size,
            persistent_workers=self.num_workers > 0,
            **self.loader_settings,
        )

    def val_dataloader(self) -> DataLoader[list[Sample]]:
        batches = share(len(self.val_scenes), self.eval_batch_size, self.trainer.global_rank, self.trainer.world_size)
        return self._in_order(self.val_scenes, batches, persistent_workers=self.num_workers > 0)

    def label(self, folder: Path, split: str, **info: Any) -> ExitTableWriter:
        """Open an exit table of a split for `predict` to fill; `info`: the other fields of `TableInfo`."""
        if split not in ("train", "val"):
            raise ValueError(f"split={split}: an exit table is of one split, expected train or val")
        self.labelled = self.train_scenes if split == "train" else self.val_scenes
        self.labelling = ExitTableWriter(folder, TableInfo(split=split, num_images=len(self.labelled), **info))
        return self.labelling

    def predict_dataloader(self) -> DataLoader[list[Sample]]:
        batches = self.labelling.share(self.eval_batch_size, self.trainer.global_rank, self.trainer.world_size)
        return self._in_order(self.labelled, batches)

    def _in_order(self, scenes: Scenes, batches: list[list[int]], **settings: Any) -> DataLoader[list[Sample]]:
        view = Batches(View(scenes, self.resize, self.seed), batches)
        return DataLoader(dataset=view, batch_size=None, **settings, **self.loader_settings)

    @property
    def loader_settings(self) -> dict[str, Any]:
        """Settings that all loaders share."""
        return {
            "collate_fn": collate,
            "num_workers": self.num_workers,
            "worker_init_fn": leave_signals_to_parent,
            "pin_memory": torch.cuda.is_available(),
        }


class Batches(Dataset[list[Sample]]):
    """The samples of each batch: item i has those of the i-th list of indices."""

    def __init__(self, view: Dataset[Any], batches: Sequence[Sequence[int]]) -> None:
        self.view, self.batches = view, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[Sample]:
        return [self.view[image_index] for image_index in self.batches[index]]
