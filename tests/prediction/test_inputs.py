"""Photos out of files, folders, patterns and videos."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.prediction.inputs import Inputs, distinct


def save(file: Path, width: int = 8) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((6, width, 3), np.uint8)).save(file)
    return file


def listed(*sources: object) -> list[tuple[str, int]]:
    return [(shot.name, shot.image_id) for shot, _ in Inputs([str(source) for source in sources])]


def test_folders_patterns_and_files_go_together(tmp_path: Path) -> None:
    """In order, each file once, folders to any depth, other files left alone."""
    for name in ("b/a b.png", "b/deep/é.JPG", "c1.png", "c2.png"):
        save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("")
    names = listed(tmp_path / "c2.png", tmp_path / "b", tmp_path / "c?.png")
    assert names == [("c2", 1), ("a b", 2), ("é", 3), ("c1", 4)]


def test_no_two_names_are_alike(tmp_path: Path) -> None:
    """The same name in several folders, of several kinds, or in another case; not even by the number that was added."""
    for name in ("1/cat.png", "2/cat.png", "2/Cat.jpg", "3/cat_2.png"):
        save(tmp_path / name)
    names = [name for name, _ in listed(tmp_path)]
    assert names == ["cat", "Cat_2", "cat_3", "cat_2_2"]


def test_many_files_of_a_name_take_no_time() -> None:
    """As of a camera that calls every picture the same, in a folder of its own."""
    names = distinct(["rgb"] * 50_000 + ["rgb_7", "RGB"])
    assert names[:3] == ["rgb", "rgb_2", "rgb_3"]
    assert names[-2:] == ["rgb_7_2", "RGB_50001"]


def test_long_names_leave_room(tmp_path: Path) -> None:
    """For what is added to the names of answers; characters stay whole, names differ."""
    for end in "ab":
        save(tmp_path / f"{'é' * 120}{end}.png")
    (first, _), (second, _) = listed(tmp_path)
    assert first == "é" * 100
    assert second == f"{first}_2"


def test_names_that_are_numbers_are_ids(tmp_path: Path) -> None:
    """As in COCO; one that is none, or two that are the same, and all are numbered."""
    for name in ("000000000139.jpg", "000000000285.jpg"):
        save(tmp_path / name)
    assert [image_id for _, image_id in listed(tmp_path)] == [139, 285]
    save(tmp_path / "139.jpg")
    assert [image_id for _, image_id in listed(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("names", [("1.mp4", "2.png", "3.png"), ("7.mp4", "7.png"), ("1.png", "001.png", "clip.mp4")])
def test_no_two_photos_have_an_id(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Frames of a video among them."""
    pytest.importorskip("av")
    from src.prediction.video import Recorder

    for name in names:
        file = save(tmp_path / name) if name.endswith("png") else tmp_path / name
        if file.suffix == ".mp4":
            recorder = Recorder(file, (16, 16), Fraction(10))
            for _ in range(6):
                recorder.write(Image.new("RGB", (16, 16)))
            recorder.close()
    ids = [image_id for _, image_id in listed(tmp_path)]
    assert len(ids) == len({*ids}) == len(names) + 5


def test_what_cannot_be_read_is_left_out_and_told(tmp_path: Path) -> None:
    """Cut short, no picture at all, or empty; a second pass tells the same."""
    file = save(tmp_path / "cut.png", 400)
    file.write_bytes(file.read_bytes()[:60])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "zero.png").write_bytes(b"")
    save(tmp_path / "whole.png")
    inputs = Inputs([str(tmp_path)])
    for _ in range(2):
        assert [shot.name for shot, _ in inputs] == ["whole"]
        assert [why.split(":")[0] for why in inputs.broken] == [
            str(tmp_path / n) for n in ("cut.png", "text.jpg", "zero.png")
        ]


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    """An empty folder, a pattern without a match, no such file."""
    for source, message in ((".", "no image or video"), ("*.png", "nothing matches"), ("a.png", "no such file")):
        with pytest.raises(FileNotFoundError, match=message):
            Inputs([str(tmp_path / source)])


def test_a_video_is_its_frames(tmp_path: Path) -> None:
    """In order, under its name; one without a frame, or that is none, is left out."""
    pytest.importorskip("av")
    from src.prediction.video import RATE, Recorder

    recorder = Recorder(tmp_path / "clip.mp4", (33, 32), RATE)
    for shade in range(0, 250, 50):
        recorder.write(Image.new("RGB", (33, 32), (shade, shade, shade)))
    recorder.close()
    (tmp_path / "empty.mkv").write_bytes(b"")
    (tmp_path / "text.avi").write_text("no video")
    save(tmp_path / "clip.png")
    inputs = Inputs([str(tmp_path)])
    found = list(inputs)
    names = [*(f"clip/{number:06d}" for number in range(1, 6)), "clip_2"]
    assert sorted(shot.name for shot, _ in found) == sorted(names)
    shades = [int(photo.float().mean()) for shot, photo in found if shot.video]
    assert np.abs(np.array(shades) - np.arange(0, 250, 50)).max() < 5
    assert [Path(why.split(":")[0]).name for why in inputs.broken] == ["empty.mkv", "text.avi"]


def test_a_video_without_the_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and images alone do not ask for it."""
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    save(tmp_path / "a.png")
    assert listed(tmp_path) == [("a", 1)]
    (tmp_path / "b.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pip install '.\[video\]'"):
        listed(tmp_path)
