"""Files are whole or not there, and a full disk is named."""

from pathlib import Path

import pytest

from src.system.atomic import atomic_write, write_json, write_text


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    """Its folder is made; what was being written when an error came is gone."""
    file = tmp_path / "folder" / "scores.json"
    write_text("old", file)

    def fail() -> None:
        with atomic_write(file) as part:
            part.write_text("ne")
            assert file.read_text() == "old"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert file.read_text() == "old"
    write_json({"a": [1]}, file)
    assert file.read_text() == '{\n "a": [\n  1\n ]\n}'
    assert [one.name for one in file.parent.iterdir()] == ["scores.json"]


def test_a_full_disk_is_named_and_what_was_there_stays(small_disk: Path) -> None:
    """With the file that could not be written."""
    file = small_disk / "scores.json"
    write_text("old", file)
    with pytest.raises(OSError, match=rf"{file}: cannot be written, the disk {small_disk} is full"):
        write_text("x" * (2 << 20), file)
    assert file.read_text() == "old"
    assert [one.name for one in small_disk.iterdir()] == ["scores.json"]


def test_another_error_keeps_its_words(tmp_path: Path) -> None:
    """A folder that is a file is no full disk."""
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        write_text("x", tmp_path / "file" / "scores.json")
