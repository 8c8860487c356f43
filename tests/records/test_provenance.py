"""What is recorded of what made a number."""

import socket
import subprocess
from pathlib import Path

import pytest
import torch

from src.records.provenance import ROOT, made_by, revision


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of one commit."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("1")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    revision.cache_clear()
    return tmp_path


def test_a_changed_file_shows(checkout: Path) -> None:
    """A plus behind the commit."""
    clean = revision(checkout)
    assert clean is not None
    assert len(clean) == 12
    revision.cache_clear()
    (checkout / "src/a.py").write_text("2")
    assert revision(checkout) == f"{clean}+"


@pytest.mark.parametrize(("file", "mark"), [("src/new.py", "+"), ("notes.txt", "")])
def test_a_new_file_shows_where_it_may_run(checkout: Path, file: str, mark: str) -> None:
    """In src and conf; notes beside them change no number."""
    clean = revision(checkout)
    revision.cache_clear()
    (checkout / file).write_text("1")
    assert revision(checkout) == f"{clean}{mark}"


def test_no_checkout_has_no_revision(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither a bare folder nor one inside another repository."""
    assert revision(tmp_path_factory.mktemp("bare")) is None
    assert revision(checkout / "src") is None


def test_no_name_and_no_path_is_told() -> None:
    """Of the machine only its class."""
    said = made_by(torch.device("cpu"), 2)
    assert set(said) == {"git", "torch", "device"}
    assert str(said["device"]).startswith("2 x CPU, ")
    assert not [value for value in said.values() if value and (socket.gethostname() in value or str(ROOT) in value)]
