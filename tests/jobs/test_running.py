"""Jobs side by side: order, what is done already, what fails."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src.jobs.job import Job, failure_reason
from src.jobs.running import run_all
from src.system.cpus import processors

FINISH = "from src.records.run_folder import finish; "  # what a command says when it has come to its end
APPEND = f"{FINISH} import pathlib as p, sys; log = p.Path(sys.argv[1]); log.open('a').write(sys.argv[2]);"
APPEND += "finish(log.parent / sys.argv[3], 'all of it')"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where jobs write a letter each, by a module of their own."""
    (tmp_path / "append.py").write_text(APPEND)
    (tmp_path / "fail.py").write_text("import sys; sys.exit('no luck')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "written"


def job(log: Path, letter: str, *after: str, module: str = "append") -> Job:
    return Job(letter, [module, str(log), letter, letter], log.parent / letter, after)


def test_jobs_wait_for_what_they_build_on(log: Path) -> None:
    """However they are listed."""
    run_all([job(log, "c", "a", "b"), job(log, "b", "a"), job(log, "a")], at_once=3)
    assert log.read_text() == "abc"


def test_what_is_done_is_not_run_again(log: Path) -> None:
    """Unless its command is another."""
    run_all([job(log, "a")], at_once=1)
    run_all([job(log, "a"), job(log, "b", "a")], at_once=1)
    assert log.read_text() == "ab"
    run_all([job(log, "a")._replace(arguments=["append", str(log), "x", "a"])], at_once=1)
    assert log.read_text() == "abx"


@pytest.mark.slow
def test_what_is_made_from_something_that_runs_anew_runs_anew(log: Path) -> None:
    """However they are listed."""
    jobs = [job(log, "c", "b"), job(log, "b", "a"), job(log, "a")]
    run_all(jobs, at_once=1)
    (log.parent / "a" / "done.json").unlink()
    run_all(jobs, at_once=1)
    assert log.read_text() == "abcabc"


def test_a_folder_is_of_its_last_command(log: Path) -> None:
    """What another command has begun to overwrite is not done, even if that one failed."""
    run_all([job(log, "a")], at_once=1)
    run_all([job(log, "a", module="fail")], at_once=1)
    run_all([job(log, "a")], at_once=1)
    assert log.read_text() == "aa"


def test_a_failed_job_has_a_reason(log: Path) -> None:
    """What builds on it does not run, and it runs again the next time."""
    jobs = [job(log, "a"), job(log, "f", "a", module="fail"), job(log, "g", "f")]
    for _ in range(2):
        assert run_all(jobs, at_once=1) == {"f": "no luck", "g": "not run, it builds on f"}
    assert log.read_text() == "a"


def test_a_training_goes_on_from_its_last_checkpoint(log: Path) -> None:
    """If the same command was begun before, and only then; what another command left does not come back later."""
    (log.parent / "show.py").write_text("import sys; print(*sys.argv[1:])")
    one = Job("t", ["show", "steps=2"], log.parent / "seed=0,schedule=[1,1,1]", steps=2)
    last = one.folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    for begun, expected in (("show steps=1", "steps=2\n"), ("show steps=2", "steps=2 ckpt_path=auto\n")):
        last.touch()
        (one.folder / "begun").write_text(begun)
        (one.folder / "log.txt").write_text("")
        run_all([one], at_once=1)
        assert (one.folder / "log.txt").read_text() == expected
        assert last.exists() == (begun == one.line)


@pytest.mark.slow
def test_a_job_that_is_requeued_goes_on(log: Path) -> None:
    """Called in a process that a cluster gave, it is the command that a process of its own would be."""
    one = Job("t", ["show", "steps=2"], log.parent / "seed=0")
    finish = f"{FINISH} import pathlib; finish(pathlib.Path({str(one.folder)!r}), 'all of it')"
    (log.parent / "show.py").write_text(
        f"import sys; print(*sys.argv[1:]); len(sys.argv) < 3 and sys.exit(1); {finish}"
    )
    call = f"from pathlib import Path; from src.jobs.job import Job, Requeueable; Requeueable({one!r})()"
    call = call.replace("PosixPath", "Path")
    said = []
    for status in (1, 0):
        process = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False)
        assert (process.returncode, one.done) == (status, status == 0), process.stderr
        said.append(process.stdout)
        (one.folder / "checkpoints").mkdir(exist_ok=True)
        (one.folder / "checkpoints" / "last.ckpt").touch()
    assert said == ["steps=2\n", "steps=2 ckpt_path=auto\n"]


@pytest.mark.slow
def test_the_signals_to_requeue_are_for_one(log: Path) -> None:
    """Neither Lightning, which takes USR1, nor workers that the job forks requeue it too."""
    (log.parent / "ask.py").write_text(
        "import multiprocessing as m, signal\n"
        "def ask(n): return str(signal.getsignal(n))\n"
        "print(ask(signal.SIGUSR1), ask(signal.SIGUSR2), m.get_context('fork').Pool(1).apply(ask, (signal.SIGUSR2,)))"
    )
    one = Job("a", ["ask"], log.parent / "a")
    call = "import signal; signal.signal(signal.SIGUSR2, print); from pathlib import Path\n"
    call += f"from src.jobs.job import Job, Requeueable; Requeueable({one!r})()".replace("PosixPath", "Path")
    shown = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True).stdout
    assert shown == "1 <built-in function print> 1\n".replace("1", str(signal.SIG_IGN))


def test_a_job_is_a_module_of_this_python(log: Path) -> None:
    """The one that runs the script; jobs side by side share the processors that it may use."""
    (log.parent / "where.py").write_text("import os, sys; print(sys.executable, os.environ['OMP_NUM_THREADS'])")
    run_all([Job("w", ["where"], log.parent / "w")], at_once=processors())
    assert (log.parent / "w" / "log.txt").read_text() == f"{sys.executable} 1\n"


def test_an_error_is_told_also_if_a_progress_bar_ends_behind_it(tmp_path: Path) -> None:
    """Bars end with the process; of what is no error the last line counts, of nothing the exit status."""
    for text, expected in (
        ("error: lr=1: too high\ntraining:   0%|  | 0/20\rtraining:  5%| | 1/20\n\n", "error: lr=1: too high"),
        ("one\nKilled\nsrun: error: task 0: Exited\n", "Killed"),
        ("", "exit status 3"),
    ):
        (tmp_path / "log.txt").write_text(text)
        assert failure_reason(Job("a", ["a"], tmp_path), 3) == expected
