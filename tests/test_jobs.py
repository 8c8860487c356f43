"""Jobs side by side: order, what is done already, what fails."""

import os
import sys
from pathlib import Path

import pytest
import torch

from src.jobs import Job, run_all

APPEND = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('a').write(sys.argv[2])"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where jobs write a letter each, by a module of their own."""
    (tmp_path / "append.py").write_text(APPEND)
    (tmp_path / "fail.py").write_text("import sys; sys.exit('no luck')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "written"


def job(log: Path, letter: str, *after: str, module: str = "append") -> Job:
    return Job(letter, [module, str(log), letter], log.parent / letter, after)


def test_jobs_wait_for_what_they_build_on(log: Path) -> None:
    """However they are listed."""
    run_all([job(log, "c", "a", "b"), job(log, "b", "a"), job(log, "a")], at_once=3)
    assert log.read_text() == "abc"


def test_what_is_done_is_not_run_again(log: Path) -> None:
    """Unless its command is another."""
    run_all([job(log, "a")], at_once=1)
    run_all([job(log, "a"), job(log, "b", "a")], at_once=1)
    assert log.read_text() == "ab"
    run_all([job(log, "a")._replace(arguments=["append", str(log), "x"])], at_once=1)
    assert log.read_text() == "abx"


def test_what_is_made_from_something_that_runs_anew_runs_anew(log: Path) -> None:
    """However they are listed."""
    jobs = [job(log, "c", "b"), job(log, "b", "a"), job(log, "a")]
    run_all(jobs, at_once=1)
    (log.parent / "a" / "done").unlink()
    run_all(jobs, at_once=1)
    assert log.read_text() == "abcabc"


def test_a_folder_is_of_its_last_command(log: Path) -> None:
    """What another command has begun to overwrite is not done, even if that one failed."""
    run_all([job(log, "a")], at_once=1)
    run_all([job(log, "a", module="fail")], at_once=1)
    run_all([job(log, "a")], at_once=1)
    assert log.read_text() == "aa"


def test_a_job_that_fails_is_named_with_its_last_words(log: Path) -> None:
    """What builds on it does not run, and it runs again the next time."""
    jobs = [job(log, "a"), job(log, "f", "a", module="fail"), job(log, "g", "f")]
    for _ in range(2):
        assert run_all(jobs, at_once=1) == {"f": "no luck", "g": "not run, it builds on f"}
    assert log.read_text() == "a"


def test_a_training_goes_on_from_its_last_checkpoint(log: Path) -> None:
    """If the same command was begun before, and only then."""
    (log.parent / "show.py").write_text("import sys; print(*sys.argv[1:])")
    one = Job("t", ["show", "steps=2"], log.parent / "t", steps=2)
    last = one.folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    torch.save({}, last)
    for begun, expected in (("show steps=1", "steps=2\n"), ("show steps=2", f"steps=2 ckpt_path={last}\n")):
        (one.folder / "begun").write_text(begun)
        (one.folder / "log.txt").write_text("")
        (one.folder / "done").unlink(missing_ok=True)
        run_all([one], at_once=1)
        assert (one.folder / "log.txt").read_text() == expected


def test_a_checkpoint_that_is_cut_short_is_not_gone_on_from(log: Path) -> None:
    """Whoever wrote it was killed; the training begins anew."""
    (log.parent / "show.py").write_text("import sys; print(*sys.argv[1:])")
    one = Job("t", ["show"], log.parent / "t")
    last = one.folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    torch.save({"x": torch.zeros(99)}, last)
    last.write_bytes(last.read_bytes()[:300])
    (one.folder / "begun").write_text("show")
    run_all([one], at_once=1)
    assert (one.folder / "log.txt").read_text() == "\n"


def test_a_job_is_a_module_of_this_python(log: Path) -> None:
    """The one that runs the script; jobs side by side share its cores."""
    (log.parent / "where.py").write_text("import os, sys; print(sys.executable, os.environ['OMP_NUM_THREADS'])")
    run_all([Job("w", ["where"], log.parent / "w")], at_once=os.cpu_count() or 1)
    assert (log.parent / "w" / "log.txt").read_text() == f"{sys.executable} 1\n"
