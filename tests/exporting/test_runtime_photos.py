"""Photos read, resized, normalised and painted without torch, against the project's own way."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src import painting
from src.data.formats.images import read_image
from src.data.shapes import Shapes
from src.data.targets import Category
from src.data.transforms import ResizeShortestEdge
from src.exporting import runtime
from src.models.model import Model
from src.models.postprocess import Instances, Panoptic
from src.tasks.evaluation import ImagePrediction
from tests.exporting.tiny_export import write_export

ORIENTATION = 0x0112
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 17, 4), np.uint8)


def picture(mode: str) -> Image.Image:
    """An image of a mode of Pillow's."""
    if mode == "I;16":
        return Image.fromarray((PIXELS[..., 0].astype(np.uint16) << 8) + PIXELS[..., 1])
    if mode == "transparent palette":
        made = Image.fromarray(PIXELS[..., :3]).convert("P")
        made.info["transparency"] = bytes(range(256))
        return made
    return Image.fromarray(PIXELS).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "transparent palette"])
def test_files_of_every_mode_are_read_alike(tmp_path: Path, mode: str) -> None:
    """Grey, palettes, transparency, one and sixteen bits."""
    file = tmp_path / "photo.png"
    picture(mode).save(file)
    assert np.array_equal(runtime.read_photo(file), read_image(file).permute(1, 2, 0))


@pytest.mark.parametrize("turn", range(1, 10))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_files_are_turned_alike(tmp_path: Path, turn: int, suffix: str) -> None:
    """As EXIF says, and not where it says nonsense."""
    file, tags = tmp_path / f"photo.{suffix}", Image.Exif()
    tags[ORIENTATION] = turn
    picture("RGB").save(file, exif=tags)
    assert np.array_equal(runtime.read_photo(file), read_image(file).permute(1, 2, 0))


def test_a_pillow_image_and_an_array_are_photos(tmp_path: Path) -> None:
    """And other things are refused."""
    expected = np.asarray(picture("RGB"))
    assert np.array_equal(runtime.read_photo(picture("RGB")), expected)
    assert np.array_equal(runtime.read_photo(expected), expected)
    assert runtime.read_photo(expected[..., 0]).shape == expected.shape
    for other in (expected.astype(np.float32), np.zeros((3, 0, 3), np.uint8), 7, PIXELS):
        with pytest.raises(ValueError, match="expected a path, a Pillow image or a uint8 array"):
            runtime.read_photo(other)


@pytest.mark.parametrize("size", [(1, 1), (32, 64), (640, 480), (427, 640), (37, 501), (333, 500), (101, 1000)])
@pytest.mark.parametrize(("short", "long"), [(64, 128), (100, 150), (97, 97)])
def test_photos_enter_the_network_alike(tmp_path: Path, size: tuple[int, int], short: int, long: int) -> None:
    """The same size, the same pixels, the same padding."""
    router = runtime.Router(write_export(tmp_path, resize={"short": short, "long": long}))
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    resized, padded, _ = router.fit(size)
    theirs = ResizeShortestEdge(short, long).image(torch.from_numpy(photo).permute(2, 0, 1))
    expected = Preprocess(router).preprocess([theirs])
    assert (resized, padded) == (theirs.shape[-2:], expected.shape[-2:])
    assert np.array_equal(router.prepared(photo, resized, padded), expected[0])


class Preprocess:
    """What `Model.preprocess` needs of a model."""

    divisor = 32
    padded = classmethod(Model.padded.__func__)  # type: ignore[attr-defined]
    preprocess = Model.preprocess

    def __init__(self, router: Any) -> None:
        self.mean, self.std = (torch.tensor(router.manifest[name])[:, None, None] for name in ("mean", "std"))


@pytest.mark.parametrize("kind", ["panoptic", "instances", "semantic"])
def test_an_overlay_is_the_one_of_the_project(kind: str) -> None:
    """Colours, outlines and names, of every kind of segmentation."""
    scenes = Shapes(1, 160)
    sample, categories = scenes[0], scenes.categories
    truth = sample.truth
    count = len(truth.labels)
    scores = torch.linspace(0.3, 0.9, count)
    whole = [None, None, None, 1, 0.0]
    answers: dict[str, ImagePrediction] = {
        "panoptic": ImagePrediction(panoptic=Panoptic(truth.segments[0], truth.labels, scores)),
        "instances": ImagePrediction(instances=Instances(scores, truth.labels, truth.masks())),
        "semantic": ImagePrediction(semantic=torch.cat([torch.tensor([0]), truth.labels])[truth.segments[0]]),
    }
    photo = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
    expected = painting.paint(photo, painting.predicted_layer(answers[kind], photo.size), categories)
    place = ["panoptic", "instances", "semantic"].index(kind)
    whole[place] = converted(getattr(answers[kind], kind))
    made = runtime.paint(photo, runtime.Answer(*whole, 0.0, photo.size[::-1]), classes_of(categories))
    assert np.array_equal(made, expected)


def converted(answer: Any) -> Any:
    """An answer of torch's as one of numpy's."""
    if isinstance(answer, torch.Tensor):
        return answer.numpy()
    kind = runtime.Panoptic if isinstance(answer, Panoptic) else runtime.Instances
    return kind(*(field.numpy() for field in answer))


def classes_of(categories: list[Category]) -> list[dict[str, Any]]:
    return [category._asdict() for category in categories]
