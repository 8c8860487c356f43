from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from src.data.module import SegmentationData
from src.data.samplers import StepSampler, share
from src.data.scenes import View
from src.data.shapes import Shapes
from src.data.targets import Batch, collate
from src.data.transforms import LargeScaleJitter, ResizeShortestEdge

SCENES = Shapes(10, size=32)


def stream(num_draws: int, start: int = 0, seed: int = 0, rank: int = 0, num_ranks: int = 1) -> list[tuple[int, int]]:
    return list(StepSampler(SCENES, num_draws, lambda: start, seed, rank, num_ranks))


def test_every_pass_shows_every_image_once():
    """Each run of ten draws of ten images is a permutation, and no two passes have the same order."""
    passes = [[index for index, _ in stream(30)[n : n + 10]] for n in (0, 10, 20)]
    assert [sorted(order) for order in passes] == [list(range(10))] * 3
    assert passes[0] != passes[1] != passes[2]
    assert passes[0] != [index for index, _ in stream(10, seed=1)]


def test_ranks_share_one_stream():
    """What two ranks see in a step is what one process with twice the batch sees in that step."""
    for step in range(3):
        of_ranks = [stream(24, rank=rank, num_ranks=2)[step * 4 : step * 4 + 4] for rank in (0, 1)]
        assert sorted(chain(*of_ranks), key=lambda key: key[1]) == stream(24)[step * 8 : step * 8 + 8]


@pytest.mark.parametrize("start", [0, 7, 10, 29, 30])
def test_a_stream_goes_on_where_it_stopped(start: int):
    """Started late, the stream is the rest of the stream, while its length stays the whole's."""
    assert stream(30, start) == stream(30)[start:]
    assert len(StepSampler(SCENES, 30, lambda: start, 0)) == 30


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 12])
def test_evaluation_sees_every_image_once(num_ranks: int):
    """Ranks together see every image, none twice; one without images has a batch all the same."""
    batches = [batch for rank in range(num_ranks) for batch in share(10, 3, rank, num_ranks)]
    assert sorted(chain(*batches)) == list(range(10))
    assert max(map(len, batches)) <= 3
    assert len([batch for batch in batches if not batch]) == max(num_ranks - 10, 0)


def test_a_batch_may_be_empty():
    """As that of a process without images is."""
    assert collate([]) == Batch([], [], [], [])


def test_a_sample_depends_on_seed_index_and_draw():
    """An augmented sample is the same whenever asked for, and another at another draw."""
    view = View(SCENES, LargeScaleJitter(32), seed=3, segmentation="panoptic")
    first, again, later = view[(4, 7)], view[(4, 7)], view[(4, 17)]
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.truth.segments, again.truth.segments)
    assert not torch.equal(first.image, later.image)
    assert not torch.equal(first.image, View(SCENES, LargeScaleJitter(32), seed=4)[(4, 7)].image)


class Recorder(lightning.LightningModule):
    """A model that only notes which images it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained: list[list[int]] = []
        self.crowds = 0
        self.scored: list[int] = []
        self.labelled: list[int] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.trained.append(batch.image_ids)
        self.crowds += sum(int(truth.crowd.sum()) for truth in batch.truths)
        return self.weight

    def validation_step(self, batch: Batch, _: int) -> None:
        self.scored += batch.image_ids
        self.crowds += sum(int(truth.crowd.sum()) for truth in batch.truths)

    def predict_step(self, batch: Batch, _: int) -> None:
        self.labelled += batch.image_ids

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def data(**changes: Any) -> SegmentationData:
    arguments: dict[str, Any] = {
        "train": partial(Shapes, 10, size=32, crowd=1.0),
        "val": partial(Shapes, 5, size=32, seed=1, crowd=1.0),
        "augment": LargeScaleJitter(32, 1, 1),
        "resize": ResizeShortestEdge(32, 64),
        "segmentation": "panoptic",
        "batch_size": 2,
        "eval_batch_size": 2,
        "num_workers": 0,
        "seed": 0,
    }
    return SegmentationData(**arguments | changes)


def trainer(**changes: Any) -> lightning.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    arguments: dict[str, Any] = quiet | {"num_sanity_val_steps": 0, "enable_checkpointing": False}
    return lightning.Trainer(**arguments | changes)


def test_a_resumed_run_sees_what_the_whole_run_saw(tmp_path: Path):
    """Stopped inside a pass and resumed from its checkpoint, training sees the same images in the same order."""
    steps: dict[str, Any] = {"max_steps": 7, "accumulate_grad_batches": 2, "limit_val_batches": 0}
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    whole, rest = Recorder(), Recorder()
    trainer(**steps, enable_checkpointing=True, callbacks=[keep]).fit(whole, data())
    trainer(**steps).fit(rest, data(), ckpt_path=tmp_path / "step=3.ckpt", weights_only=True)
    assert len(whole.trained) == 14
    assert rest.trained == whole.trained[6:]


def test_epochs_are_counted_in_steps():
    """Two epochs of ten images in batches of two are ten steps, which show each image twice."""
    model, two = Recorder(), trainer(max_epochs=2, limit_val_batches=0)
    two.fit(model, data())
    assert two.max_steps == two.global_step == 10
    assert sorted(chain(*model.trained)) == sorted([*range(10)] * 2)


def test_shortened_epochs_go_on():
    """With epochs limited to a few batches, the next epoch goes on in the stream instead of starting again."""
    whole, pieces = Recorder(), Recorder()
    trainer(max_steps=6, limit_val_batches=0).fit(whole, data())
    trainer(max_steps=6, max_epochs=3, limit_train_batches=2, limit_val_batches=0).fit(pieces, data())
    assert pieces.trained == whole.trained


def test_crowds_are_scored_and_not_trained_on():
    """Training targets have no crowd; the truth that scores are computed from has them all."""
    model = Recorder()
    trainer(max_steps=5, limit_val_batches=0).fit(model, data())
    assert model.crowds == 0
    trainer().validate(model, data(), verbose=False)
    assert model.crowds == 5
    assert model.scored == list(range(5))


ABOUT = {"parent": "x", "source": "", "exits": [1], "segmentation": "panoptic", "inputs": {}, "settings": {}}


@pytest.mark.parametrize(("split", "count"), [("train", 10), ("val", 5)])
def test_labelling_goes_through_the_images_of_a_split(split: str, count: int, tmp_path: Path):
    """Predicting sees every image once, in order, with worker processes as without."""
    model, module = Recorder(), data(num_workers=1)
    module.label(tmp_path, split, shard_size=4, **ABOUT)
    trainer().predict(model, module, return_predictions=False)
    assert model.labelled == list(range(count))


def test_processes_share_the_shards_that_are_missing(tmp_path: Path):
    """Each image is with one process, and no batch reaches over the end of a shard."""
    about = {**ABOUT, "shard_size": 4}
    shares = [data().label(tmp_path, "train", **about).share(3, rank, 2) for rank in range(2)]
    assert shares == [[[0, 1, 2], [3], [8, 9]], [[4, 5, 6], [7]]]


def test_validation_needs_no_training_files():
    """Scores can be had where the training set is not on disk; training then says what is missing."""

    def absent() -> Shapes:
        raise FileNotFoundError("no training images here")

    trainer().validate(Recorder(), data(train=absent), verbose=False)
    with pytest.raises(FileNotFoundError, match="no training images here"):
        trainer(max_steps=1).fit(Recorder(), data(train=absent))


def test_splits_must_have_the_same_classes():
    """Categories that differ between the splits are refused with the first difference."""

    def renamed() -> Shapes:
        scenes = Shapes(5)
        scenes.categories = [*scenes.categories[:3], scenes.categories[3]._replace(name="disc"), *scenes.categories[4:]]
        return scenes

    with pytest.raises(ValueError, match=r"category 3 is .*'circle'.* in training, expected .*'disc'"):
        data(val=renamed).setup("fit")


def test_an_unknown_task_is_refused_at_once():
    """A task that does not exist is refused before anything is loaded."""
    with pytest.raises(ValueError, match="'things', expected one of panoptic"):
        data(segmentation="things")


def test_an_exit_table_is_of_one_split(tmp_path):
    """Both at once are refused."""
    with pytest.raises(ValueError, match="split=both: an exit table is of one split, expected train or val"):
        data().label(tmp_path, "both")
