"""Comparing the files of src.predict with those of runtime.py."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths

from scripts.same_answers import compared, main

IDS = np.zeros((20, 30), np.uint8)
IDS[5:15, 5:15] = 1
SEGMENT = {"id": 1, "category_id": 7, "score": 0.9}


def packed(mask: np.ndarray) -> dict[str, Any]:
    found = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**found, "counts": found["counts"].decode()}


INSTANCE = {"category_id": 7, "score": 0.8, "segmentation": packed(IDS == 1)}


def write(folder: Path) -> tuple[Path, Path]:
    """One photo as src.predict writes it, and the same as runtime.py does."""
    ours, theirs = folder / "ours", folder / "theirs"
    for place in (ours / "panoptic", theirs / "panoptic", theirs / "json"):
        place.mkdir(parents=True)
    with (ours / "exits.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("image_id", "name", "exit"), (3, "cat", 2)])
    (ours / "panoptic.json").write_text(json.dumps({"annotations": [{"image_id": 3, "segments_info": [SEGMENT]}]}))
    (ours / "instances.json").write_text(json.dumps([{"image_id": 3, **INSTANCE}]))
    answer(theirs)
    for place in (ours, theirs):
        Image.fromarray(IDS).save(place / "panoptic" / "cat.png")
    return ours, theirs


def answer(theirs: Path, **others: Any) -> None:
    """Write runtime.py's answer with some entries replaced."""
    content = {"exit": 2, "segments_info": [SEGMENT], "instances": [INSTANCE], **others}
    (theirs / "json" / "cat.json").write_text(json.dumps(content))


def test_equal_answers_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 0, and scores may differ by rounding."""
    ours, theirs = write(tmp_path)
    answer(theirs, segments_info=[{**SEGMENT, "score": 0.9004}])
    with pytest.raises(SystemExit) as ended:
        main([str(ours), str(theirs)])
    assert ended.value.code == 0
    assert "1 of 1 photos with the same answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"exit": 3}, "exits"),
        ({"segments_info": [{**SEGMENT, "category_id": 8}]}, "segments"),
        ({"segments_info": []}, "segments"),
        ({"segments_info": [{**SEGMENT, "score": 0.91}]}, "scores"),
        ({"instances": []}, "segments"),
        ({"instances": [{**INSTANCE, "score": 0.7}]}, "segments"),
        ({"instances": [{**INSTANCE, "segmentation": packed(IDS == 0)}]}, "pixels"),
    ],
)
def test_any_other_answer_is_found(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    """Another exit, class, score, number of segments or mask."""
    ours, theirs = write(tmp_path)
    answer(theirs, **change)
    (found,) = compared(ours, theirs).values()
    assert not found.same
    assert getattr(found, field) > 0


def test_maps_are_compared_pixel_by_pixel(tmp_path: Path) -> None:
    """Twelve of 600 pixels are 2 %."""
    ours, theirs = write(tmp_path)
    Image.fromarray(np.where(np.arange(600).reshape(20, 30) < 12, 5, IDS).astype(np.uint8)).save(
        theirs / "panoptic" / "cat.png"
    )
    (found,) = compared(ours, theirs).values()
    assert found.pixels == pytest.approx(0.02)
    assert not found.same


def test_other_photos_are_refused(tmp_path: Path) -> None:
    """One line says how many there are."""
    ours, theirs = write(tmp_path)
    (theirs / "json" / "dog.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"1 photos, .* 2, and not the same"):
        main([str(ours), str(theirs)])
