"""What the page of an export shows, without its browser."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.app import EXIT, GATE, GFLOPS, MS, Viewer
from src.exporting.runtime import keep, measure
from tests.exporting.tiny_export import EXITS, write_export


@pytest.fixture
def photo(tmp_path: Path) -> str:
    file = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)).save(file)
    return str(file)


def test_every_exit_has_a_picture_and_a_row(tmp_path: Path, photo: str) -> None:
    """A photo that was looked at already is not run again."""
    viewer = Viewer(write_export(tmp_path / "tiny"), 1)
    _, pictures, rows = viewer.every_exit(photo)
    assert [row[0] for row in rows] == EXITS
    assert all(picture.size == (96, 64) and text.startswith("exit ") for picture, text in pictures)
    assert viewer.every_exit(photo)[2] == rows  # its times too


def test_the_page_offers_what_the_export_can_do(tmp_path: Path) -> None:
    """A gate if there is one, milliseconds once they were measured; the ends of a budget are met by every exit."""
    folder = write_export(tmp_path / "tiny")
    assert Viewer(folder, 1).ways() == [EXIT, GATE, GFLOPS]
    assert Viewer(write_export(tmp_path / "plain", gate=None), 1).ways() == [EXIT, GFLOPS]
    keep(measure(folder, None, 2, 1), folder)
    viewer = Viewer(folder, 1)
    assert viewer.ways() == [EXIT, GATE, GFLOPS, MS]
    low, high = viewer.range_of(GFLOPS)
    costs = [cost for one in viewer.router.manifest["costs"] for cost in one["gflops"].values()]
    assert low <= min(costs) < max(costs) <= high <= 1.01 * max(costs)
    assert len(f"{high:g}".replace(".", "").strip("0")) <= 3
