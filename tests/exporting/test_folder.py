"""The folder of an export, and what pushes it."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.push_to_hub import main
from src.exporting.folder import check_files, check_target, listed, replacing
from src.exporting.manifest import NOT_STATED, read_manifest
from src.weights.architecture import NON_COMMERCIAL


def made(folder: Path, licence: str = "Apache-2.0", **changes: Any) -> Path:
    """A folder that looks like an export, with one file."""
    folder.mkdir()
    (folder / "trunk.onnx").write_bytes(b"graph")
    content = {"format": "ecoscale export", "version": 1, "weights": {"licence": licence}, "files": listed(folder)}
    (folder / "manifest.json").write_text(json.dumps(content | changes))
    return folder


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """An error on the way leaves the old files and nothing beside them."""
    folder = made(tmp_path / "out")

    def interrupted() -> None:
        with replacing(folder) as new:
            (new / "trunk.onnx").write_bytes(b"half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        interrupted()
    assert (folder / "trunk.onnx").read_bytes() == b"graph"
    with replacing(folder) as new:
        (new / "other.onnx").write_bytes(b"whole")
    assert [file.name for file in folder.iterdir()] == ["other.onnx"]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_only_an_export_is_replaced(tmp_path: Path) -> None:
    """A new, an empty folder and an export are fine; other files are not lost."""
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new", tmp_path / "empty", made(tmp_path / "out")):
        check_target(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"")
    for place in (tmp_path / "mine", tmp_path / "mine" / "photo.jpg"):
        with pytest.raises(ValueError, match="expected a new or empty folder"):
            check_target(place)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2, expected 1"),
        ({"format": "other"}, "not the manifest of an export"),
    ],
)
def test_another_manifest_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match=message):
        read_manifest(made(tmp_path / "out", **changes))


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", ".."])
def test_a_manifest_names_files_in_its_folder_only(name: str, tmp_path: Path) -> None:
    """It may come from a stranger."""
    folder = made(tmp_path / "out", files={name: {"bytes": 1, "sha256": ""}})
    with pytest.raises(ValueError, match="no name of a file in this folder"):
        check_files(folder, read_manifest(folder))


def test_a_trial_gets_what_the_hub_would_get(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files of the manifest, the manifest and measured latencies; nothing else that lies there."""
    folder = made(tmp_path / "out")
    (folder / "latency.json").write_text("{}")
    (folder / "notes.txt").write_text("private")
    main([str(folder), str(tmp_path / "trial")])
    assert {file.name for file in (tmp_path / "trial").iterdir()} == {"trunk.onnx", "manifest.json", "latency.json"}
    assert capsys.readouterr().out.strip() == str(tmp_path / "trial")


def test_nothing_is_pushed_that_is_damaged_or_forbidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file cut short, a lost one, weights that may not be passed on; a missing licence is only noted."""
    cut, lost = made(tmp_path / "cut"), made(tmp_path / "lost")
    (cut / "trunk.onnx").write_bytes(b"gra")
    (lost / "trunk.onnx").unlink()
    wrong = {cut: "other content", lost: "it is not there", made(tmp_path / "forbidden", NON_COMMERCIAL): "licence"}
    for folder, message in (wrong | {tmp_path / "none": "no export"}).items():
        with pytest.raises(SystemExit, match=message):
            main([str(folder), str(tmp_path / "trial")])
    assert not (tmp_path / "trial").exists()
    main([str(made(tmp_path / "unknown", NOT_STATED)), str(tmp_path / "trial")])
    assert "licence of the weights is not stated" in capsys.readouterr().err
