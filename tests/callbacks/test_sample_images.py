"""Pictures of predictions."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from torch import Tensor

from src.callbacks.sample_images import Picture, Pictures, boxes_of, extremes, masks_of, take
from src.data.shapes import Shapes
from src.data.targets import Batch, Sample, Truth, collate
from src.metrics.mean_iou import semantic_map
from src.models.box_postprocess import Boxes
from src.models.postprocess import Instances, Panoptic
from src.painting import HEIGHT, MARGIN, TITLE, Segments, shade
from src.tasks.evaluation import ImagePrediction

SCENES = Shapes(3, size=48, void=0.0, crowd=0.0)


def answer_with(truth: Truth, segmentation: str) -> ImagePrediction:
    """The answer that is right."""
    scores = torch.linspace(0.6, 0.9, len(truth.labels))
    if segmentation == "panoptic":
        return ImagePrediction(Panoptic(truth.segments[0], truth.labels, scores), None, None)
    if segmentation == "boxes":
        return ImagePrediction(boxes=Boxes(scores, truth.labels, truth.boxes()))
    if segmentation == "instance":
        return ImagePrediction(None, Instances(scores, truth.labels, truth.masks()), None)
    return ImagePrediction(None, None, semantic_map(truth.segments, truth.labels))


def task_of(*answers: ImagePrediction) -> Any:
    """A task whose exits, from the first, answer every image so."""
    by_exit = [answer._replace(exit=depth) for depth, answer in enumerate(answers, 1)]
    return SimpleNamespace(categories=SCENES.categories, answers=lambda image, size: by_exit)


def draw(image: Tensor, truth: Truth, *answers: ImagePrediction) -> Image.Image:
    """The sheet of one image."""
    batch: Any = Batch([image], [truth], [0], ["name"])
    return take(task_of(*answers), batch, 0, None).sheet(SCENES.categories)


def panels(sheet: Image.Image, width: int) -> list[Image.Image]:
    """What stands side by side on a sheet, each `width` wide."""
    lefts = [MARGIN + column * (width + MARGIN) for column in range(3)]
    return [sheet.crop((left, TITLE, left + width, TITLE + HEIGHT)) for left in lefts]


def same(a: Image.Image, b: Image.Image) -> bool:
    return ImageChops.difference(a, b).getbbox() is None


def wide(sample: Sample) -> Sample:
    """The lower half of a scene."""
    truth = sample.truth._replace(segments=sample.truth.segments[:, 24:])
    keep = torch.tensor([(truth.segments == n).any() for n in range(1, len(truth.labels) + 1)])
    return sample._replace(image=sample.image[:, 24:], truth=truth.select(keep))


@pytest.mark.parametrize("segmentation", ["panoptic", "instance", "semantic"])
def test_a_right_prediction_looks_like_the_truth(segmentation: str) -> None:
    """Image, truth and prediction stand side by side at one size; the last two are equal if the answer is right."""
    sample = wide(SCENES[1])
    truth = sample.truth.for_task(SCENES.categories, segmentation)
    sheet = draw(sample.image, truth, answer_with(truth, segmentation))
    assert sheet.size == (3 * 2 * HEIGHT + 4 * MARGIN, HEIGHT + TITLE + MARGIN)
    image, annotated, predicted = panels(sheet, 2 * HEIGHT)
    photo = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
    assert same(image, photo.resize((2 * HEIGHT, HEIGHT)))
    assert same(annotated, predicted)
    assert not same(annotated, image)


def test_boxes_are_outlines_with_a_name_and_a_score() -> None:
    """In the colour of their class, at the place of the truth; without scores for the truth, unsure ones not at all."""
    sample = wide(SCENES[1])
    truth = sample.truth.for_task(SCENES.categories, "boxes")
    assert len(truth.labels)
    answer = answer_with(truth, "boxes")
    image, annotated, predicted = panels(draw(sample.image, truth, answer), 2 * HEIGHT)
    scale = HEIGHT / sample.image.shape[-2]
    left, top, _, bottom = (round(scale * float(x)) for x in truth.boxes()[0])
    at = (left, (2 * top + bottom) // 3)
    category = SCENES.categories[int(truth.labels[0])]
    assert annotated.getpixel(at) == predicted.getpixel(at) == shade(category, 0)
    assert not same(annotated, predicted)  # scores
    unsure = answer._replace(boxes=answer.boxes._replace(scores=answer.boxes.scores - 0.5))  # type: ignore[union-attr]
    assert same(panels(draw(sample.image, truth, unsure), 2 * HEIGHT)[2], image)


def test_boxes_have_a_form_of_their_own_in_wandb() -> None:
    """Pixels of the photo, class, caption and score; no masks beside them, as there are no boxes beside masks."""
    sample = SCENES[1]
    truth = sample.truth.for_task(SCENES.categories, "boxes")
    batch = collate([sample._replace(truth=truth)])
    picture = take(task_of(answer_with(truth, "boxes")), batch, 0, 1)
    (layers,) = boxes_of([picture], SCENES.categories)
    assert list(layers) == ["truth", "exit 1"]
    assert masks_of([picture], SCENES.categories) == [{}]
    assert boxes_of([take(task_of(answer_with(truth, "panoptic")), batch, 0, None)], SCENES.categories) == [{}]
    scale = HEIGHT / 48
    first = layers["truth"]["box_data"][0]
    assert list(first["position"].values()) == pytest.approx([scale * x for x in truth.boxes()[0].tolist()])
    assert layers["truth"]["class_labels"][first["class_id"]] == first["box_caption"]
    assert all(0.5 <= one["scores"]["score"] <= 1 for one in layers["exit 1"]["box_data"])


def nothing(segmentation: str, size: tuple[int, int]) -> ImagePrediction:
    """The answer of a model that finds no segment."""
    labels, scores = torch.zeros(0, dtype=torch.long), torch.zeros(0)
    if segmentation == "panoptic":
        return ImagePrediction(Panoptic(torch.zeros(size, dtype=torch.int32), labels, scores), None, None)
    return ImagePrediction(None, Instances(scores, labels, torch.zeros(0, *size, dtype=torch.bool)), None)


@pytest.mark.parametrize("segmentation", ["panoptic", "instance"])
def test_a_prediction_of_nothing_is_drawn(segmentation: str) -> None:
    """The panel of an answer without segments is that of a truth without segments."""
    sample = SCENES[0]
    empty = sample.truth.select(torch.zeros(len(sample.truth.labels), dtype=torch.bool))
    answer = nothing(segmentation, (48, 48))
    _, annotated, predicted = panels(draw(sample.image, sample.truth, answer), HEIGHT)
    _, blank, _ = panels(draw(sample.image, empty, answer), HEIGHT)
    assert same(predicted, blank)
    assert not same(predicted, annotated)


def test_unsure_instances_are_not_drawn_and_the_surest_lies_on_top() -> None:
    """Of three masks at one place the surest is seen, below one half none."""
    image, masks = SCENES[0].image, torch.ones(3, 48, 48, dtype=torch.bool)
    truth = Truth(torch.ones(1, 48, 48, dtype=torch.int32), torch.tensor([4]), torch.tensor([False]), torch.zeros(1))

    def predicted(scores: Tensor) -> Image.Image:
        answer = ImagePrediction(None, Instances(scores, torch.tensor([3, 4, 5]), masks), None)
        return panels(draw(image, truth, answer), HEIGHT)[2]

    shown = panels(draw(image, truth, nothing("instance", (48, 48))), HEIGHT)
    assert same(predicted(torch.tensor([0.1, 0.6, 0.2])), shown[1])
    assert same(predicted(torch.tensor([0.1, 0.4, 0.2])), shown[2])
    assert same(predicted(torch.tensor([0.7, 0.6, 0.8])), predicted(torch.tensor([0.6, 0.7, 0.8])))
    assert not same(predicted(torch.tensor([0.7, 0.8, 0.6])), predicted(torch.tensor([0.8, 0.7, 0.6])))


def test_every_exit_has_a_panel() -> None:
    """As many as there are, in even rows; what a right exit answers is the truth, what an empty one does is not."""
    sample = SCENES[1]
    right, empty = answer_with(sample.truth, "panoptic"), nothing("panoptic", (48, 48))
    sheet = draw(sample.image, sample.truth, empty, right, right)  # five panels in rows of three
    width, height = HEIGHT + MARGIN, HEIGHT + TITLE + MARGIN
    assert sheet.size == (3 * width + MARGIN, 2 * height)
    corners = [(MARGIN + column * width, TITLE + row * height) for row in (0, 1) for column in (0, 1, 2)]
    _, truth, *exits = [sheet.crop((left, top, left + HEIGHT, top + HEIGHT)) for left, top in corners][:5]
    assert [same(truth, panel) for panel in exits] == [False, True, True]


@pytest.mark.parametrize(
    ("depths", "count", "expected"),
    [
        ([0, 0, 0, 0, 0], 4, [0, 1, 2, 3]),  # no gate: the first
        ([3, 1, 2, 4, 4, 1], 4, [1, 3, 4, 5]),
        ([3, 1], 4, [0, 1]),
        ([2, 2, 2, 3, 1], 3, [0, 3, 4]),
        ([1, 2], 0, []),
    ],
)
def test_who_is_drawn_left_first_or_last(depths: list[int], count: int, expected: list[int]) -> None:
    """Half and half, of equal ones the first, each once."""
    assert extremes(depths, count) == expected


class Saver:
    """A validation of some scenes, image by image, whose gate sends them to these exits."""

    def __init__(self, folder: Path, count: int, exits: list[int], gate: bool):
        self.pictures, self.exits, self.gate = Pictures(str(folder), count), exits, gate
        self.trainer: Any = SimpleNamespace(
            is_global_zero=True,
            sanity_checking=False,
            loggers=[],
            precision_plugin=SimpleNamespace(forward_context=nullcontext),
        )
        self.asked = 0

    def answers(self, image: Tensor, size: tuple[int, int]) -> list[ImagePrediction]:
        self.asked += 1
        return [nothing("panoptic", (48, 48))._replace(exit=depth) for depth in (1, 2)]

    def validate(self) -> None:
        task: Any = SimpleNamespace(categories=SCENES.categories, answers=self.answers)
        for place, depth in enumerate(self.exits):
            batch = collate([SCENES[place % 3]])._replace(names=[f"a {place}.png"])
            outputs = {"answers": [nothing("panoptic", (48, 48))._replace(exit=depth)]}
            outputs |= {"gflops": [1.0]} if self.gate else {}
            self.pictures.on_validation_batch_end(self.trainer, task, outputs, batch, place)
        self.pictures.on_validation_end(self.trainer, task)


def test_the_first_images_are_kept_and_renewed(tmp_path: Path) -> None:
    """`count` files however many images there are, nothing computed for others, and the same after a validation."""
    saver = Saver(tmp_path / "pictures", 2, [2, 2, 2, 2], gate=False)
    for times in (1, 2):
        saver.validate()
        assert [file.name for file in sorted((tmp_path / "pictures").iterdir())] == ["00_a_0.png", "01_a_1.png"]
        assert saver.asked == 2 * times


def test_of_a_gate_those_that_left_first_and_last_are_kept(tmp_path: Path) -> None:
    """In the order of their exits."""
    Saver(tmp_path, 2, [2, 1, 3, 1, 3], gate=True).validate()
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["00_a_1.png", "01_a_2.png"]


def test_masks_name_the_class_of_every_pixel() -> None:
    """One layer for the truth and one for each exit, as W&B takes them."""
    sample = SCENES[1]
    picture = take(task_of(answer_with(sample.truth, "panoptic")), collate([sample]), 0, 1)
    (masks,) = masks_of([picture], SCENES.categories)
    assert list(masks) == ["truth", "exit 1"]
    layer = masks["truth"]
    shown = {layer["class_labels"][number] for number in set(layer["mask_data"].flatten().tolist())}
    assert shown - {"nothing"} == {SCENES.categories[label].name for label in sample.truth.labels.tolist()}
    assert (masks["exit 1"]["mask_data"] == layer["mask_data"]).all()


def test_masks_of_many_classes_name_none_wrongly() -> None:
    """W&B's have 8 bits: the last number stands for all classes that have none of their own."""
    classes = [SCENES.categories[0]._replace(name=f"c{number}") for number in range(300)]
    segments = Segments(np.array([[0, 1, 2, 3]], np.int32), [0, 253, 299])
    (masks,) = masks_of([Picture("a", None, Image.new("RGB", (4, 1)), {"truth": segments})], classes)
    names = [masks["truth"]["class_labels"][number] for number in masks["truth"]["mask_data"][0].tolist()]
    assert names == ["nothing", "c0", "c253", "one of the last 46 classes"]
