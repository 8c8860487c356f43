"""Sweeps as processes: every job runs once, what fails is told, and a table says what came of all."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra._internal.callbacks import Callbacks
from omegaconf import DictConfig, OmegaConf

from src.config.command_line import PLUGINS
from src.jobs.results import mark_pareto, objectives, result_tables
from src.records.run_folder import folder_name
from tests.helpers import ROOT

sys.path.append(PLUGINS) if PLUGINS not in sys.path else None
from hydra_plugins.processes import ProcessLauncher  # noqa: E402

# A command that takes x=... and keeps it as its score; it tells a list that it ran, and fails for x=bad.
PRETEND = """
import json, pathlib, sys, time
given = dict(one.lstrip('+').split('=', 1) for one in sys.argv[1:])
run = pathlib.Path(given['hydra.run.dir'].strip("'"))
with (pathlib.Path(__file__).parent / 'ran').open('a') as ran:
    ran.write(given['x'] + '\\n')
time.sleep(float(given.get('sleep', 0)))
if given['x'] == 'bad':
    sys.exit('error: x=bad: expected good')
(run / 'done.json').write_text('{"why": "all of it", "step": null}')
(run / 'scores.json').write_text(json.dumps({'exits': {'2': {'pq': len(given['x']) / 3, 'total_gflops': 5.0}}}))
"""


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the command, which stands for the one that was typed."""
    (tmp_path / "pretend.py").write_text(PRETEND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="pretend"), raising=False)
    return tmp_path


def launcher(folder: Path, *values: str, others: tuple[str, ...] = (), devices: Any = 1, **settings: Any) -> Any:
    """What Hydra would start a sweep over x with."""
    hydra = {
        "sweep": {"dir": str(folder / "sweep")},
        "searchpath": [],
        "overrides": {"task": [f"x={','.join(values)}", *others]},
        "sweeper": {"params": None} | settings.pop("sweeper", {}),
    }
    config = OmegaConf.create({"hydra": hydra, "trainer": {"devices": devices, "max_steps": 5}})
    loader = SimpleNamespace(load_sweep_config=lambda config, overrides: config)
    made = ProcessLauncher(**settings)
    made.setup(
        hydra_context=SimpleNamespace(config_loader=loader, callbacks=Callbacks()),  # type: ignore[arg-type]
        task_function=lambda cfg: None,
        config=DictConfig(config),
    )
    return made


def launch(folder: Path, *values: str, others: tuple[str, ...] = (), **settings: Any) -> None:
    """A sweep over x, as Hydra would run it."""
    made = launcher(folder, *values, others=others, **settings)
    made.launch([[f"x={value}", *others] for value in values], 0)
    made.context.callbacks.on_multirun_end(config=made.config)


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "sweep" / "table.csv") as file:
        return list(csv.DictReader(file))


def ran(folder: Path) -> list[str]:
    return sorted((folder / "ran").read_text().split())


def test_a_row_for_every_job(pretend: Path) -> None:
    """With what it was given and its scores to the last digit; jobs have folders named after that."""
    launch(pretend, "a", "bb", "ccc", at_once=2)
    assert [(row["x"], row["status"], row["exit"], row["pq"]) for row in rows(pretend)] == [
        ("a", "done", "2", str(1 / 3)),
        ("bb", "done", "2", str(2 / 3)),
        ("ccc", "done", "2", "1.0"),
    ]
    assert json.loads((pretend / "sweep" / "x=bb" / "scores.json").read_text())["exits"]["2"]["pq"] == 2 / 3


@pytest.mark.slow
def test_the_same_sweep_again_runs_what_is_missing(pretend: Path) -> None:
    """Nothing that is finished, and everything else; the table is that of one sweep."""
    launch(pretend, "a", "bb")
    launch(pretend, "a", "bb", "ccc")
    assert ran(pretend) == ["a", "bb", "ccc"]
    assert [row["x"] for row in rows(pretend)] == ["a", "bb", "ccc"]


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_failure_is_told_and_the_others_run(at_once: int, pretend: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 1, the last line of the job says why, and it runs again the next time."""
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            launch(pretend, "a", "bad", "ccc", at_once=at_once)
        assert stop.value.code == 1
    assert ran(pretend) == ["a", "bad", "bad", "ccc"]
    assert [(row["x"], row["status"]) for row in rows(pretend)] == [("a", "done"), ("bad", "failed"), ("ccc", "done")]
    shown = capsys.readouterr().out
    assert "1 of 3 jobs failed" in shown
    assert "x=bad: expected good" in " ".join(shown.split())


def test_a_sweep_can_stop_at_a_failure(pretend: Path) -> None:
    """What was not run is marked so."""
    with pytest.raises(SystemExit):
        launch(pretend, "bad", "a", on_failure="stop")
    assert ran(pretend) == ["bad"]
    assert [row["status"] for row in rows(pretend)] == ["failed", "not run"]


def test_two_sweeps_do_not_share_a_folder(pretend: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second is refused while the first runs."""
    script = f"import sys; sys.path[:0] = ['{ROOT}']\n"
    script += "from pathlib import Path; from src.records.run_folder import locked; import time\n"
    script += f"with locked(Path('{pretend}/sweep')): print('in', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    with pytest.raises(SystemExit) as stop:
        launch(pretend, "a")
    assert stop.value.code == 2
    assert "a sweep is running there" in capsys.readouterr().err
    other.kill()
    other.wait()
    launch(pretend, "a")
    assert ran(pretend) == ["a"]


@pytest.mark.slow
def test_jobs_end_with_a_sweep_that_is_killed(pretend: Path) -> None:
    """By kill -9 too; the same sweep then ends as an unbroken one, and what was finished did not run twice."""
    script = f"import sys; sys.path[:0] = ['{ROOT}']\n"
    script += "from pathlib import Path; from src.jobs.job import Job; from src.jobs.running import run_all\n"
    script += f"place = Path('{pretend}')\n"
    script += "jobs = [Job(x, ['pretend', f'x={x}', f'hydra.run.dir={place / x}', f'+sleep={s}'], place / x)"
    script += " for x, s in (('a', 0), ('bb', 2))]\nprint(run_all(jobs, 1))"
    first = subprocess.Popen([sys.executable, "-c", script], env=os.environ, stderr=subprocess.DEVNULL)
    while not (pretend / "ran").is_file() or len(ran(pretend)) < 2:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(3)
    assert not (pretend / "bb" / "scores.json").exists()  # it would be there if the job had lived on
    subprocess.run([sys.executable, "-c", script], check=True, stderr=subprocess.DEVNULL)
    assert ran(pretend) == ["a", "bb", "bb"]
    assert (pretend / "bb" / "scores.json").exists()


@pytest.mark.slow
def test_batches_are_one_sweep(pretend: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has the jobs of all, none runs twice, and what failed is told at the end, not before."""
    made = launcher(pretend, "a", "bad", "ccc")
    (pretend / "sweep" / "x=bad").mkdir(parents=True)
    (pretend / "sweep" / "x=bad" / "scores.json").write_text('{"exits": {"2": {"pq": 99, "total_gflops": 1}}}')  # stale
    returns = [made.launch([[f"x={value}"] for value in batch], 0) for batch in (["a", "bad", "a"], ["bad", "ccc"])]
    assert [one.return_value for batch in returns for one in batch] == [[1 / 3, 5], None, [1 / 3, 5], None, [1, 5]]
    assert ran(pretend) == ["a", "bad", "ccc"]
    assert [(row["x"], row["status"]) for row in rows(pretend)] == [("a", "done"), ("bad", "failed"), ("ccc", "done")]
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit) as stop:
        made.context.callbacks.on_multirun_end(config=made.config)
    assert stop.value.code == 1
    assert "1 of 3 jobs failed" in capsys.readouterr().out


@pytest.mark.slow
def test_the_pareto_set_is_told_and_marked(pretend: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equals stand together; a job without scores is neither on it nor beaten."""
    with pytest.raises(SystemExit):
        launch(pretend, "a", "ccc", "ddd", "bad")
    assert [row["front"] for row in rows(pretend)] == ["False", "True", "True", ""]
    shown = capsys.readouterr().out
    assert "Pareto set: 2 of 3" in " ".join(shown.split())
    assert shown.count("x=ddd") == 2
    assert shown.count("x=a") == 1


def test_what_cannot_be_had_is_not_on_the_front() -> None:
    """An oracle knows the truth; a gate stands for its table, whose fixed exits are the same for each gate."""
    outcomes = {"gate": 0.5, "oracle": 0.9, "exit2": 0.6}
    scores = [{"exit": who, "quality": q, "utility": q, "gflops": 1.0} for who, q in outcomes.items()]
    assert [row.get("front") for row in mark_pareto(scores)] == [True, None, None]
    assert [row.get("front") for row in mark_pareto([{"exit": "2", "ap": math.nan, "total_gflops": 1.0}])] == [None]


def test_sizes_of_images_are_compared_by_the_cost_of_images() -> None:
    """Which grows with them, unlike that at image_size; it is shown, too."""
    rows = [
        {"job": f"short={short}", "status": "done", "data.resize.short": short, "exit": "2", "pq": pq, **cost}
        for short, pq, cost in (
            ("64", 50.0, {"total_gflops": 9.0, "image_gflops": 1.0}),
            ("96", 60.0, {"total_gflops": 9.0, "image_gflops": 2.0}),
        )
    ]
    assert [row["front"] for row in mark_pareto(rows)] == [True, True]
    results, front = result_tables(rows, "sizes")
    assert "image_gflops" in [column.header for column in results.columns]
    assert list(front.columns[-1].cells) == ["1", "2"]


@pytest.mark.parametrize(
    ("scores", "values"),
    [
        ({"2": {"pq": 1.0, "miou": 9.0, "total_gflops": 3.0}, "10": {"pq": 2.0, "total_gflops": 4.0}}, [2.0, 4.0]),
        ({"3": {"miou": 5.0, "total_gflops": 4.0}}, [5.0, 4.0]),
        ({"gate": {"quality": 0.5, "utility": 0.4, "gflops": 2.0}, "oracle": {"quality": 0.9}}, [0.5, 2.0]),
        ({"3": {"ap": math.nan, "total_gflops": 4.0}}, None),
        ({}, None),
    ],
)
def test_a_search_is_told_of_the_deepest_exit_or_the_gate(scores: Any, values: list[float] | None) -> None:
    """Its quality, by the first score that counts, and its cost."""
    assert objectives(scores) == values


def test_a_search_goes_on_after_a_failure(pretend: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And asks for the same again when it is started again, of which only what failed runs anew."""
    samplers = pytest.importorskip("optuna").samplers
    search = pytest.importorskip("hydra_plugins.hydra_optuna_sweeper._impl").OptunaSweeperImpl
    asked: list[list[str]] = []
    for _ in range(2):
        made = launcher(pretend, "a", "bad", "ccc", sweeper={"direction": ["maximize", "minimize"]})
        params = OmegaConf.create({"x": "a,bad,ccc"})
        sweeper = search(
            samplers.TPESampler(seed=0), ["maximize", "minimize"], None, None, 12, 4, 1.0, None, None, params
        )
        sweeper.config, sweeper.hydra_context, sweeper.launcher = made.config, made.context, made
        sweeper.sweep([])
        asked.append(list(made.jobs))
        with pytest.raises(SystemExit) as stop:
            made.on_multirun_end(made.config)
        assert stop.value.code == 1
    assert asked[0] == asked[1]
    assert ran(pretend) == ["a", "bad", "bad", "ccc"]
    assert {row["x"]: row["front"] for row in rows(pretend)} == {"a": "False", "bad": "", "ccc": "True"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *(({"on_failure": "later"}, "on_failure=later"), ({"at_once": 0}, "at_once=0")),
        *(({"at_once": "two"}, "at_once=two"), ({"sweeper": {"direction": "maximize"}}, "direction=maximize")),
        ({"sweeper": {"custom_search_space": "a.b"}}, "custom_search_space=a.b: expected null"),
    ],
)
def test_settings_that_cannot_be(
    settings: dict[str, Any], said: str, pretend: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line each."""
    with pytest.raises(SystemExit):
        launch(pretend, "a", **settings)
    assert said in capsys.readouterr().err


def test_a_job_has_one_gpu(pretend: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Several at once are refused with the way to have them; otherwise each job sees its own."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with pytest.raises(SystemExit):
        launch(pretend, "a", devices=2)
    assert "trainer.devices=2: a job of a sweep has one GPU" in capsys.readouterr().err
    seen = "open(pathlib.Path(__file__).parent / 'gpus', 'a').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    (pretend / "pretend.py").write_text(f"import os, pathlib, time; time.sleep(0.5)\n{seen}\n")
    with pytest.raises(SystemExit):  # without a record of their end they have not come to it
        launch(pretend, "a", "bb", devices="auto")
    assert sorted((pretend / "gpus").read_text()) == ["3", "5"]


def test_long_names_are_cut() -> None:
    """To what a folder can be called, and still tell jobs apart."""
    names = {folder_name("schedule=[1,1,1]," * 20 + end) for end in "ab"}
    assert len(names) == 2
    assert all(len(name) < 120 for name in names)
    assert folder_name("beta=0.1") == "beta=0.1"
