import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import prepare_ade20k
from src.data.checks.inspection import Looks
from src.data.coco import CocoInstances, CocoPanoptic
from tests.scripts.served import address, files_below, serving, zipped

# A wall (1) with a door (15, the fifth kind of thing), sky (3) wholly under a bed (8, the first), and nothing.
SEMANTIC = np.array([[1, 1, 1, 0], [1, 15, 3, 0], [1, 15, 3, 0]], np.uint8)
KINDS = np.array([[0, 0, 0, 0], [0, 5, 1, 0], [0, 5, 1, 1]], np.uint8)
NUMBERS = np.array([[0, 0, 0, 0], [0, 4, 9, 0], [0, 4, 9, 2]], np.uint8)


def picture(pixels: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the script makes of a release with one image in each split."""
    content: dict[str, bytes] = {"ADEChallengeData2016/objectInfo150.txt": b"", "ADEChallengeData2016/x.txt": b""}
    site = tmp_path / "site"
    (site / "places" / "ADEchallenge").mkdir(parents=True)
    with tarfile.open(site / "annotations_instance.tar", "w") as tar:
        for split, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
            image = picture(np.stack([SEMANTIC] * 3, -1), "JPEG")
            content[f"ADEChallengeData2016/images/{split}/{name}.jpg"] = image
            content[f"ADEChallengeData2016/annotations/{split}/{name}.png"] = picture(SEMANTIC, "PNG")
            body = picture(np.stack([KINDS, NUMBERS, NUMBERS * 0], -1), "PNG")
            entry = tarfile.TarInfo(f"annotations_instance/{split}/{name}.png")
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    (site / "places" / "ADEchallenge" / "ADEChallengeData2016.zip").write_bytes(zipped(content))
    with serving(site) as server:
        images, objects = (a._replace(makes=dict.fromkeys(a.makes, 1), sha1=None) for a in prepare_ade20k.ARCHIVES)
        objects = objects._replace(path=f"{address(server)}/annotations_instance.tar")
        monkeypatch.setattr(prepare_ade20k, "ARCHIVES", (images, objects))
        for _ in range(2):
            prepare_ade20k.main(["--root", str(tmp_path / "ade20k"), "--url", address(server)])
        assert len(server.asked) == 2
    return tmp_path / "ade20k"


def panoptic(root: Path, covered: bool = True) -> CocoPanoptic:
    files = (root / "images" / "validation", root / "ade20k_panoptic_val.json", root / "ade20k_panoptic_val")
    return CocoPanoptic(*files, covered=covered)


def test_all_is_laid_out_as_the_readers_expect(root: Path):
    """Images, both kinds of masks and what is made of them, and nothing else."""
    names = {"training": "ADE_train_00000001", "validation": "ADE_val_00000001"}
    made = {f"ade20k_{kind}_{split}.json" for kind in ("panoptic", "instance") for split in ("train", "val")}
    made |= {"ade20k_panoptic_train/ADE_train_00000001.png", "ade20k_panoptic_val/ADE_val_00000001.png"}
    pictures = {f"images/{split}/{name}.jpg" for split, name in names.items()}
    masks = {f"annotations{kind}/{split}/{name}.png" for split, name in names.items() for kind in ("", "_instance")}
    assert files_below(root) == made | pictures | masks | {"objectInfo150.txt"}


def test_things_lie_on_stuff(root: Path):
    """Stuff comes from the classes, things from the objects, which hide what is below; 100 of 150 are things."""
    scenes = panoptic(root)
    truth = scenes[0].truth
    assert (len(scenes.categories), sum(category.isthing for category in scenes.categories)) == (150, 100)
    assert [scenes.categories[label].name for label in truth.labels] == ["wall", "sky", "bed", "door", "bed"]
    assert truth.segments.tolist() == [[[1, 1, 1, 0], [1, 4, 5, 0], [1, 4, 5, 3]]]
    assert truth.areas.tolist() == [5, 2, 1, 2, 2]
    with pytest.raises(ValueError, match="segment 80018 is not in the mask"):
        panoptic(root, covered=False)[0]
    assert not Looks(scenes, decoded=[0])[0].problems


def test_objects_are_the_instances(root: Path):
    """The instance file has the objects, among the 100 things."""
    scenes = CocoInstances(root / "images" / "validation", root / "ade20k_instance_val.json")
    truth = scenes[0].truth
    assert len(scenes.categories) == 100
    assert [scenes.categories[label].name for label in truth.labels] == ["bed", "door", "bed"]
    assert truth.masks().int().tolist() == [(number == NUMBERS).astype(int).tolist() for number in (2, 4, 9)]
    assert truth.areas.tolist() == [1, 2, 2]
