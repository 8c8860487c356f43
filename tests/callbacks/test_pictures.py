"""Pictures of predictions."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image, ImageChops
from torch import Tensor

from src.callbacks.pictures import HEIGHT, MARGIN, TITLE, Pictures, draw
from src.data.shapes import Shapes
from src.data.targets import Sample, Truth, collate, for_task
from src.metrics.mean_iou import semantic_map
from src.models.postprocess import Instances, Panoptic
from src.tasks.evaluation import Answer

SCENES = Shapes(3, size=48, void=0.0, crowd=0.0)


def answer_with(truth: Truth, segmentation: str) -> Answer:
    """The answer that is right."""
    scores = torch.linspace(0.6, 0.9, len(truth.labels))
    if segmentation == "panoptic":
        return Answer(Panoptic(truth.segments[0], truth.labels, scores), None, None)
    if segmentation == "instance":
        return Answer(None, Instances(scores, truth.labels, truth.masks()), None)
    return Answer(None, None, semantic_map(truth.segments, truth.labels))


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
    truth = for_task(sample.truth, SCENES.categories, segmentation)
    sheet = draw(sample.image, truth, answer_with(truth, segmentation), SCENES.categories)
    assert sheet.size == (3 * 2 * HEIGHT + 4 * MARGIN, HEIGHT + TITLE + MARGIN)
    image, annotated, predicted = panels(sheet, 2 * HEIGHT)
    photo = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
    assert same(image, photo.resize((2 * HEIGHT, HEIGHT)))
    assert same(annotated, predicted)
    assert not same(annotated, image)


def nothing(segmentation: str, size: tuple[int, int]) -> Answer:
    """The answer of a model that finds no segment."""
    labels, scores = torch.zeros(0, dtype=torch.long), torch.zeros(0)
    if segmentation == "panoptic":
        return Answer(Panoptic(torch.zeros(size, dtype=torch.int32), labels, scores), None, None)
    return Answer(None, Instances(scores, labels, torch.zeros(0, *size, dtype=torch.bool)), None)


@pytest.mark.parametrize("segmentation", ["panoptic", "instance"])
def test_a_prediction_of_nothing_is_drawn(segmentation: str) -> None:
    """The panel of an answer without segments is that of a truth without segments."""
    sample = SCENES[0]
    empty = sample.truth.select(torch.zeros(len(sample.truth.labels), dtype=torch.bool))
    answer = nothing(segmentation, (48, 48))
    _, annotated, predicted = panels(draw(sample.image, sample.truth, answer, SCENES.categories), HEIGHT)
    _, blank, _ = panels(draw(sample.image, empty, answer, SCENES.categories), HEIGHT)
    assert same(predicted, blank)
    assert not same(predicted, annotated)


def test_unsure_instances_are_not_drawn_and_the_surest_lies_on_top() -> None:
    """Of three masks at one place the surest is seen, below one half none."""
    image, masks = SCENES[0].image, torch.ones(3, 48, 48, dtype=torch.bool)
    truth = Truth(torch.ones(1, 48, 48, dtype=torch.int32), torch.tensor([4]), torch.tensor([False]), torch.zeros(1))

    def predicted(scores: Tensor) -> Image.Image:
        answer = Answer(None, Instances(scores, torch.tensor([3, 4, 5]), masks), None)
        return panels(draw(image, truth, answer, SCENES.categories), HEIGHT)[2]

    shown = panels(draw(image, truth, nothing("instance", (48, 48)), SCENES.categories), HEIGHT)
    assert same(predicted(torch.tensor([0.1, 0.6, 0.2])), shown[1])
    assert same(predicted(torch.tensor([0.1, 0.4, 0.2])), shown[2])
    assert same(predicted(torch.tensor([0.7, 0.6, 0.8])), predicted(torch.tensor([0.6, 0.7, 0.8])))
    assert not same(predicted(torch.tensor([0.7, 0.8, 0.6])), predicted(torch.tensor([0.8, 0.7, 0.6])))


def test_the_first_images_are_kept_and_renewed(tmp_path: Path) -> None:
    """`count` files however many images there are, and the same files after the next validation."""
    samples = [SCENES[index] for index in range(3)]
    batch = collate(samples)
    outputs = {"answers": [answer_with(sample.truth, "panoptic") for sample in samples]}
    trainer = SimpleNamespace(is_global_zero=True, sanity_checking=False, loggers=[])
    task = SimpleNamespace(categories=SCENES.categories)
    pictures = Pictures(str(tmp_path / "pictures"), count=2)
    for _ in range(2):
        pictures.on_validation_batch_end(trainer, task, outputs, batch, 0)  # type: ignore[arg-type]
        pictures.on_validation_end(trainer, task)  # type: ignore[arg-type]
        assert [file.name[:2] for file in sorted((tmp_path / "pictures").iterdir())] == ["00", "01"]
