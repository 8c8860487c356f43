"""`python -m src.validate_data`: says whether data are fit, and leaves the particulars in the run folder."""

import csv
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from src.config.command_line import run
from src.data.export import export_coco, export_index_masks
from src.data.shapes import Shapes
from src.records.csv_file import write_csv
from src.validate_data import validate_data
from tests.helpers import error_line

Ask = Callable[..., tuple[int, str]]
QUIET = ["trainer.enable_progress_bar=false", "data.num_workers=0", "samples=2"]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ask:
    """Exit status and what is printed, for made scenes whose run folder is `run`."""
    for split in ("train", "val"):
        export_coco(Shapes(6, size=64, crowd=0), tmp_path / "made", split)

    def ask(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["src.validate_data"])
        given = [f"data.root={tmp_path}/made", f"hydra.run.dir={tmp_path}/run", *QUIET, *arguments]
        try:
            run(validate_data, given, "validate_data")
        except SystemExit as stop:
            return int(stop.code or 0), capsys.readouterr().out
        return 0, capsys.readouterr().out

    return ask


def rows(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_what_is_fit_ends_well(ask: Ask, tmp_path: Path) -> None:
    """With exit status 0, no problem in the file, a row for each class of each split, and a picture."""
    status, text = ask("+experiment=proscale_coco")
    assert status == 0
    assert "fit for training, 0 warnings" in text
    assert "train: 6 images" in text
    assert rows(tmp_path / "run" / "problems.csv") == []
    assert len(rows(tmp_path / "run" / "counts.csv")) == 16
    assert Image.open(tmp_path / "run" / "samples.png").width > 4 * 300


@pytest.mark.slow
def test_what_is_not_fit_is_said_and_kept(ask: Ask, tmp_path: Path) -> None:
    """With exit status 1: the kinds with examples on the terminal, all of it in the file."""
    for number in range(5):
        file = tmp_path / "made" / "val2017" / f"{number:012d}.png"
        file.write_bytes(file.read_bytes()[:300])
    status, text = ask("data=coco_panoptic", "split=val")
    assert status == 1
    assert "not fit for training: 5 problems, 0 warnings" in text
    assert text.count("cannot be") == 3
    assert "train:" not in text
    kept = rows(tmp_path / "run" / "problems.csv")
    assert [(row["split"], row["breaks"], row["kind"]) for row in kept] == [("val", "True", "unreadable file")] * 5
    assert kept[0]["file"].endswith("val2017/000000000000.png")
    status, text = ask("data=coco_panoptic", "split=val", "decode=false", "samples=0")
    assert status == 0
    assert "decode=false: files that are cut short" in text


def test_a_name_that_is_no_text_is_said_and_kept(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spelt out on the terminal, and as it is in the file."""
    monkeypatch.setenv("COLUMNS", "400")
    scenes, root = Shapes(2, size=64), tmp_path / "masks"
    export_index_masks(scenes, root / "val", root / "val_masks", range(8), unlabelled=255)
    (root / "classes.csv").write_text("id,name\n" + "".join(f"{n},class {n}\n" for n in range(8)))
    (root / "val" / "000000000001.png").rename(os.fsdecode(os.fsencode(root / "val") + b"/stra\xdfe.png"))
    status, text = ask("data=custom_semantic", f"data.root={root}", "split=val")
    assert (status, r"stra\udcdfe.png" in text) == (1, True)
    assert b"stra\xdfe.png" in (tmp_path / "run" / "problems.csv").read_bytes()


def test_half_a_character_is_kept_as_unreadable(tmp_path: Path) -> None:
    """As a tool leaves it that cuts names short; what stands for bytes of a file's name stays."""
    write_csv([{"class": "half \ud83d", "file": "\udcdf", "images": 3}], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes().splitlines()[1] == "half \ufffd,".encode() + b"\xdf,3"


@pytest.mark.slow
def test_warnings_do_not_fail(ask: Ask, tmp_path: Path) -> None:
    """They are said all the same."""
    file = tmp_path / "made" / "annotations" / "panoptic_val2017.json"
    file.write_text(file.read_text().replace('"iscrowd": 0', '"iscrowd": 1'))
    settings = ["data=coco_panoptic", "split=val", "+data.val.keep_empty=false"]
    status, text = ask(*settings)
    assert (status, "cannot be read" in text) == (1, True)  # nothing is left
    text = file.read_text()
    file.write_text(text.replace('"iscrowd": 1', '"iscrowd": 0', text.count('"iscrowd": 1') // 2))
    status, text = ask(*settings)
    assert status == 0
    assert "image without objects" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("split=test", "split=test: expected train, val or both"),
        ("decode=perhaps", "decode=perhaps: expected true or false"),
        ("samples=-1", "samples=-1: expected a whole number from 0"),
        ("+experiment=eco_gate_shapes", "data.table=null: expected the folder"),
        ("data.root=nowhere", "image folder not found"),
    ],
)
def test_mistakes_are_one_line(
    override: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That names the setting, with exit status 2."""
    monkeypatch.setattr(sys, "argv", ["src.validate_data"])
    roots = [] if override.startswith("+") else ["data=coco_panoptic", f"data.root={tmp_path}"]
    given = [*roots, f"hydra.run.dir={tmp_path}/run", override]
    assert message in error_line(capsys, lambda: run(validate_data, given, "validate_data"))
