import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.checks.inspection import Looks
from src.data.export import export_index_masks
from src.data.formats.categories import read_categories
from src.data.index_masks import IndexMasks
from src.data.problems import Kind, Problem
from src.data.shapes import Shapes
from src.metrics.mean_iou import VOID, MeanIoU, semantic_map

REAL = Path(__file__).parents[2].parent / "shared" / "data"
SCENES = Shapes(6, size=64, seed=5, void=1.0, crowd=0)
VALUES = [3, 5, 8, 13, 21, 34, 55, 89]
CLASSES = "\n".join(
    ["id,name,color", *(f"{v},{c.name},#0a0b{v:02x}" for v, c in zip(VALUES, SCENES.categories, strict=True))]
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    export_index_masks(SCENES, tmp_path / "val", tmp_path / "val_masks", VALUES, unlabelled=255)
    (tmp_path / "classes.csv").write_text(CLASSES)
    return tmp_path


def read(root: Path, ignore: tuple[int, ...] = (255,)) -> IndexMasks:
    suffixes = ([".jpg", ".png"], ".png")
    return IndexMasks(root / "val", root / "val_masks", str(root / "classes.csv"), ignore, *suffixes)


def test_scenes_come_back(root: Path) -> None:
    """Scenes written as index masks are read back: each class that shows is one segment, with its pixels, as stuff."""
    scenes = read(root)
    assert len(scenes) == len(SCENES)
    assert [category.name for category in scenes.categories] == [category.name for category in SCENES.categories]
    assert not any(category.isthing for category in scenes.categories)
    assert scenes.categories[3].color == (10, 11, 13)
    for ours, theirs in zip(scenes, SCENES, strict=True):
        merged = theirs.truth.for_task(SCENES.categories, "semantic")
        assert torch.equal(ours.image, theirs.image)
        torch.testing.assert_close(ours.truth, merged, rtol=0, atol=0)
        assert ours.truth.areas.tolist() == ours.truth.masks().flatten(1).sum(1).tolist()


@pytest.mark.parametrize("mode", ["P", "I;16"])
def test_palettes_and_16_bits_are_read_as_values(root: Path, mode: str) -> None:
    """What a mask looks like in a viewer changes nothing; values beyond 255 are as good as others."""
    before = read(root)[2].truth
    file = root / "val_masks" / "000000000002.png"
    values = np.asarray(Image.open(file))
    if mode == "P":
        picture = Image.fromarray(values)
        picture.putpalette(bytes(range(255, -1, -1)) * 3)
    else:
        picture = Image.fromarray(np.where(values == 3, np.uint16(3000), values))
        (root / "classes.csv").write_text(CLASSES.replace("\n3,", "\n3000,"))
    picture.save(file)
    assert Image.open(file).mode == mode
    after = read(root)[2].truth
    assert torch.equal(semantic_map(after.segments, after.labels) == VOID, before.segments[0] == 0)
    assert sorted(after.areas.tolist()) == sorted(before.areas.tolist())


def test_names_need_not_be_utf8(root: Path) -> None:
    """Old archives have others."""
    for folder in (root / "val", root / "val_masks"):
        os.rename(folder / "000000000002.png", os.fsencode(folder) + b"/stra\xdfe.png")
    scenes = read(root)
    assert torch.equal(scenes[5].image, SCENES[2].image)
    assert os.fsencode(scenes[5].name) == b"stra\xdfe.png"


def test_folders_within_are_matched_by_path(root: Path) -> None:
    """Pictures in a folder for each city, say, have their masks in folders of the same names."""
    for folder in ("val", "val_masks"):
        (root / folder / "ulm").mkdir()
        (root / folder / "000000000002.png").rename(root / folder / "ulm" / "000000000000.png")
    scenes = read(root)
    assert len(scenes) == 6
    assert torch.equal(scenes[5].image, SCENES[2].image)
    (root / "val" / "000000000001.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"000000000001\.\w+ and .*000000000001\.\w+: expected one file"):
        read(root)


def test_what_is_missing_is_named(root: Path) -> None:
    """A folder, a class list, or the counterpart of a file that is not there is told at once, by its name."""
    for name in ("val", "val_masks", "classes.csv"):
        (root / name).rename(root / "elsewhere")
        with pytest.raises(FileNotFoundError, match=rf"not found: {root / name}\. "):
            read(root)
        (root / "elsewhere").rename(root / name)
    mask = root / "val_masks" / "000000000004.png"
    (root / "val" / mask.name).rename(root / "val" / "other.png")
    with pytest.raises(FileNotFoundError, match=rf"{root}/val/other.png: has no mask in {root}/val_masks"):
        read(root)
    (root / "val" / "other.png").unlink()
    with pytest.raises(FileNotFoundError, match=f"{mask}: has no image in {root}/val"):
        read(root)


def test_a_value_beyond_the_list_is_named_with_its_file(root: Path) -> None:
    """Values that are neither a class nor ignored are told, with the file and what could be."""
    file = "000000000004.png"
    values = np.array(Image.open(root / "val_masks" / file))
    values[0, :2] = (77, 90)
    Image.fromarray(values).save(root / "val_masks" / file)
    scenes = read(root)
    assert len(scenes[3].truth.labels)
    expected = rf"{file}: has the values \[77, 90\], expected .*classes.csv .* or of data.val.ignore, \[255\]"
    with pytest.raises(ValueError, match=expected):
        scenes[4]
    assert len(read(root, ignore=(255, 77, 90))[4].truth.labels)


def test_a_mask_that_is_none_is_named(root: Path) -> None:
    """A mask in colours, or of another size than its picture, is refused by name."""
    colours, small = (root / "val_masks" / f"00000000000{n}.png" for n in (0, 1))
    Image.open(colours).convert("RGB").save(colours)
    Image.open(small).crop((0, 0, 64, 60)).save(small)
    with pytest.raises(ValueError, match=f"{colours}: is an image in RGB, expected one channel"):
        read(root)[0]
    with pytest.raises(ValueError, match=f"{small}: is 60 x 64 .* 64 x 64, as its image"):
        read(root)[1]


def test_validation_hears_of_every_fault(root: Path) -> None:
    """Files alone, values of no class, sizes that differ and broken masks are each listed, and none hides another."""
    masks = [root / "val_masks" / f"00000000000{n}.png" for n in range(6)]
    masks[0].unlink()
    (root / "val" / masks[1].name).unlink()
    Image.open(masks[2]).crop((0, 0, 64, 60)).save(masks[2])
    masks[3].write_bytes(masks[3].read_bytes()[:60])
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save(masks[4])
    heard: list[Problem] = []
    recipe = partial(IndexMasks, root / "val", root / "val_masks", str(root / "classes.csv"), (255,), [".png"], ".png")
    looks = Looks(recipe(report=heard.extend), decoded=range(len(SCENES)))
    heard += [problem for index in range(len(looks)) for problem in looks[index].problems]
    assert [(problem.kind, Path(problem.file).name) for problem in dict.fromkeys(heard)] == [
        (Kind.MISSING, masks[0].name),
        (Kind.MISSING, masks[1].name),
        (Kind.SIZE, masks[2].name),
        (Kind.UNREADABLE, masks[3].name),
        (Kind.CATEGORY, masks[4].name),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no class; expected a first line `id,name`"),
        ("3,sky\n5,grass", "has 3, sky; expected a first line `id,name`"),
        ("id,name\n3,sky\n3,grass", "sky and grass both have 3"),
        ("id,name\n3,sky\n-1,grass", "line 3: id is '-1', expected a whole number from 0 to 65535"),
        ("id,name\n99999,sky", "line 2: id is 99999, expected a whole number from 0 to 65535"),
        ("id,name\n3,", "line 2: name is '', expected the name"),
        ("id,name,isthing\n3,sky,yes", "isthing is 'yes', expected 0 or 1"),
        ("id,name,color\n3,sky,blue", "color is 'blue', expected #rrggbb"),
        ("id,name\n3,sky\n255,void", r"ignore=\[255\]: 255 is void in .*classes.csv"),
    ],
)
def test_a_wrong_class_list_is_refused_at_once(root: Path, text: str, message: str) -> None:
    """A class list that is none is told with the file, the value and what was expected."""
    (root / "classes.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read(root)


@pytest.mark.parametrize(("name", "number", "things"), [("camvid", 11, 0), ("ade20k", 150, 100), ("cityscapes", 19, 8)])
def test_class_lists_of_benchmarks(name: str, number: int, things: int) -> None:
    """The lists that are here have as many classes as the benchmarks, each with a colour of its own."""
    classes = read_categories(name)
    assert (len(classes), sum(category.isthing for category in classes)) == (number, things)
    assert len({category.color for category in classes}) == len({category.name for category in classes}) == number


def agree(scenes: IndexMasks, index: int, mask: Path, nothing: int) -> float:
    """The mean IoU of a sample against itself, in percent, having checked it against its PNG."""
    sample = scenes[index]
    values = torch.from_numpy(np.array(Image.open(mask)))
    ids = torch.tensor([category.id for category in scenes.categories])[sample.truth.labels]
    semantic = semantic_map(sample.truth.segments, sample.truth.labels)
    assert sample.image.shape[1:] == values.shape
    assert torch.equal(semantic == VOID, values == nothing)
    assert sample.truth.areas.tolist() == [(values == id_).sum() for id_ in ids]
    metric = MeanIoU(len(scenes.categories))
    metric.update(semantic.where(semantic != VOID, torch.zeros_like(semantic)), semantic)
    return round(100 * float(metric.compute()["miou"]), 4)


@pytest.mark.skipif(not (REAL / "camvid").exists(), reason="needs CamVid")
@pytest.mark.parametrize(("split", "number"), [("train", 367), ("val", 101), ("test", 233)])
def test_camvid_agrees_with_its_masks(split: str, number: int) -> None:
    """In CamVid's own files images, classes and areas are as the masks say, and truth against itself is 100 %."""
    folders = (REAL / "camvid" / split, REAL / "camvid" / f"{split}annot")
    scenes = IndexMasks(*folders, "camvid", [11], [".png", ".jpg"], ".png")
    assert len(scenes) == number
    for index in range(0, number, 25):
        assert agree(scenes, index, folders[1] / Path(scenes[index].name).with_suffix(".png"), 11) == 100


@pytest.mark.skipif(not (REAL / "ade20k").exists(), reason="needs a sample of ADE20K")
def test_ade20k_agrees_with_its_masks() -> None:
    """In ADE20K's own files classes and areas are as the masks say, 0 being nothing, and the class list is its own."""
    root = REAL / "ade20k" / "ADEChallengeData2016"
    folders = (root / "images" / "validation", root / "annotations" / "validation")
    scenes = IndexMasks(*folders, "ade20k", [0], [".jpg"], ".png")
    for index in range(3):
        assert agree(scenes, index, folders[1] / f"ADE_val_0000000{index + 1}.png", 0) == 100
    lines = (root / "objectInfo150.txt").read_text().splitlines()[1:]
    names = [line.split("\t")[-1].split(",")[0].strip() for line in lines]
    assert names == [category.name for category in scenes.categories]
