"""The chain of ECO-M2F's steps: what its jobs are, what other settings share, and what is refused before any runs."""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from src import eco
from src.config.command_line import run
from src.eco import Step
from src.jobs.job import Job
from src.records.run_folder import finish, locked
from tests.helpers import SMALL_MODEL, TINY_SHAPES, launch
from tests.tables import write_gate, write_table

PARENT = "+experiment=eco_parent_shapes"


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Job]]:
    """Jobs of a command by name, of which none runs; those that `fails` names fail."""

    def chain(*typed: str, fails: dict[str, str] | None = None) -> dict[str, Job]:
        seen: list[Job] = []

        def pretend(jobs: Sequence[Job], *settings: object) -> dict[str, str]:
            seen.extend(jobs)
            return fails or {}

        monkeypatch.setattr(eco, "run_all", pretend)
        monkeypatch.setattr(sys, "argv", ["eco"])
        run(eco.eco, eco.arguments([f"paths.runs={tmp_path}", *typed]), "eco")
        return {job.name: job for job in seen}

    return chain


@pytest.mark.slow
def test_every_step_builds_on_the_one_before(chain: Callable[..., dict[str, Job]]) -> None:
    """A parent with the settings typed, its table with what the gates look at, a gate and its scores for each beta."""
    jobs = chain(PARENT, "lr=0.1", "betas=[0.001,0.01]")
    assert {name: job.after for name, job in jobs.items()} == {
        "parent": (),
        "exit table": ("parent",),
        "gate beta=0.001": ("exit table",),
        "gate beta=0.01": ("exit table",),
        "scores beta=0.001": ("gate beta=0.001",),
        "scores beta=0.01": ("gate beta=0.01",),
    }
    assert {PARENT, "lr=0.1"} < set(jobs["parent"].arguments)
    assert "task.inputs=[mean32,std32,mean16,std16,mean8,std8]" in jobs["exit table"].arguments
    assert {"+experiment=eco_gate_shapes", "beta=0.01", "seed=0"} < set(jobs["gate beta=0.01"].arguments)
    assert len({job.folder for job in jobs.values()}) == len(jobs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "others",
    [
        ["betas=[0.1]"],
        ["betas=[0.01]", "gates.lr=0.1", "at_once=2", "evaluate=false"],
        ["betas=[0.01]", "gates.task.target=soft", "on_failure=stop"],
    ],
)
def test_another_trade_off_keeps_parent_and_table(others: list[str], chain: Callable[..., dict[str, Job]]) -> None:
    """Command for command; gates of other settings have folders of their own."""
    first, second = chain(PARENT, "betas=[0.01]"), chain(PARENT, *others)
    assert all(first[name] == second[name] for name in ("parent", "exit table"))
    gates = [{job.folder for name, job in jobs.items() if name.startswith("gate")} for jobs in (first, second)]
    assert not gates[0] & gates[1]
    assert chain(PARENT, "lr=0.1", "betas=[0.01]")["parent"].folder != first["parent"].folder


@pytest.mark.slow
@pytest.mark.parametrize("target", ["quality", "gain"])
def test_a_gate_that_predicts_qualities_serves_every_beta(target: str, chain: Callable[..., dict[str, Job]]) -> None:
    """It is trained once, and its command does not change with them."""
    first, second = (
        chain(PARENT, betas, f"gates.task.target={target}") for betas in ("betas=[0.1]", "betas=[0.0,0.01]")
    )
    assert list(second) == ["parent", "exit table", "gate", "scores beta=0.0", "scores beta=0.01"]
    assert first["gate"] == second["gate"]
    assert "beta=0.01" in second["scores beta=0.01"].arguments


@pytest.mark.slow
def test_gates_are_those_of_the_data_set(chain: Callable[..., dict[str, Job]]) -> None:
    """Unless others are named; a logger is for all, a table has what these gates look at."""
    jobs = chain("+experiment=eco_parent_coco", "logger=wandb", "data.root=/x", "betas=[0.01]")
    assert "+experiment=eco_gate_coco" in jobs["gate beta=0.01"].arguments
    assert "task.inputs=[mean32]" in jobs["exit table"].arguments
    assert all("logger=wandb" in job.arguments for job in jobs.values())
    jobs = chain(PARENT, "betas=[0.01]", "gates=eco_gate_coco", "gates.task.gate.inputs=[std32]")
    assert "task.gate.inputs=[std32]" in jobs["gate beta=0.01"].arguments
    assert "task.inputs=[std32]" in jobs["exit table"].arguments


@pytest.mark.slow
def test_a_parent_can_be_given(chain: Callable[..., dict[str, Job]], tmp_path: Path) -> None:
    """Its settings are those of its training, what is typed comes on top, and it is scored, not trained again."""
    settings = {"config": {}, "overrides": [PARENT, "exits=[1,3]", "name=mine"]}
    torch.save({"hyper_parameters": settings}, file := tmp_path / "best.ckpt")
    jobs = chain(f"parent={file}", "data.val.num_scenes=5", "betas=[0.01]")
    assert [job.arguments[0] for job in jobs.values()] == ["src.evaluate", "src.label", "src.train", "src.evaluate"]
    assert {f"ckpt_path={file}", "exits=[1,3]", "data.val.num_scenes=5"} < set(jobs["scores beta=0.01"].arguments)
    assert jobs["exit table"].folder.parents[1] == tmp_path / "mine"


REFUSED = {
    "betas=[]": "betas=[]: expected a list of numbers, 0 or more, none twice",
    "betas=[0.1,0.10]": "none twice",
    "betas=[-1]": "betas=[-1]: expected",
    "betas=0.1": "betas=0.1: expected",
    "betas=[0.1] gates=eco_gat_coco": "did you mean 'eco_gate_coco'",
    "betas=[0.1] gates=eco_parent_coco": "gates=eco_parent_coco: an experiment of src.tasks.segmentation.Segmentation",
    "betas=[0.1] gates.task.targt=soft": "did you mean 'task.target'",
    "betas=[0.1] gates.task.target=best": "task.target=best: expected exit, soft, quality or gain",
    "betas=[0.1] gates.beta=1": "gates.beta=1: every gate has that from the chain",
    "betas=[0.1] exits=null": "exits=null: with a single exit there is nothing to choose",
    "betas=[0.1] exits=[4]": "exits=[4]: with a single exit",
    "betas=[0.1] beta=0.2": "beta=0.2: not a setting of this chain, expected betas=[...]",
    "betas=[0.1] ckpt_path=last": "ckpt_path=last: not a setting of this chain, expected parent=FILE",
    "betas=[0.1] parent=nothing": "parent=nothing: no such file",
    "betas=[0.1] on_failure=later": "on_failure=later: expected continue or stop",
    "betas=[0.1] -m": "-m: a chain has its own sweep",
    "lr=0.1": "betas: has no default, write betas=",
}


@pytest.mark.slow
@pytest.mark.parametrize("typed", REFUSED)
def test_a_mistake_is_one_line_before_anything_runs(
    typed: str, chain: Callable[..., dict[str, Job]], capsys: pytest.CaptureFixture[str]
) -> None:
    """With what was expected."""
    with pytest.raises(SystemExit) as stop:
        chain(PARENT, *typed.split())
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert REFUSED[typed] in line


def test_a_parent_on_several_gpus_is_trained_alone(
    chain: Callable[..., dict[str, Job]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line says how to go on from there."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(SystemExit):
        chain(PARENT, "betas=[0.1]", "trainer.devices=2")
    assert "trainer.devices=2: a job of a chain has one GPU" in capsys.readouterr().err


@pytest.mark.slow
def test_two_chains_do_not_share_a_folder(
    chain: Callable[..., dict[str, Job]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The second is refused while the first runs."""
    folder = chain(PARENT, "betas=[0.1]")["parent"].folder.parent
    with locked(folder), pytest.raises(SystemExit):
        chain(PARENT, "betas=[0.2]")
    assert f"{folder}: a sweep is running there" in capsys.readouterr().err


@pytest.mark.slow
def test_what_failed_is_told(chain: Callable[..., dict[str, Job]], capsys: pytest.CaptureFixture[str]) -> None:
    """What builds on it was not run; the exit status is 1, and the last line says how to look at the rest."""
    with pytest.raises(SystemExit) as stop:
        chain(PARENT, "betas=[0.1]", fails={"gate beta=0.1": "no luck", "scores beta=0.1": "not run, it builds on it"})
    assert stop.value.code == 1
    shown = capsys.readouterr().out
    assert "no luck" in shown
    folder = shown.splitlines()[-1].removeprefix("python -m src.report ")
    with open(Path(folder) / "table.csv") as file:
        status = {row["job"]: row["status"] for row in csv.DictReader(file)}
    assert (status["gate beta=0.1"], status["scores beta=0.1"]) == ("failed", "not run")


def finished_job(name: str, folder: Path) -> Step:
    """A job that need not run again, with the folder that it left."""
    job = Job(name, ["src.train"], folder)
    job.begin()
    finish(folder, "made up")
    return Step(job, {"beta": "0.02"})


def test_a_chain_judges_its_gates(tmp_path: Path) -> None:
    """Those that are done, on the holdout of their table; a holdout that is too small is said to be."""
    table = write_table(tmp_path / "label/table", num_images=400)
    steps = [finished_job("exit table", table.parent)]
    steps += [finished_job(f"gate beta={n}", write_gate(tmp_path / f"gate{n}", table)) for n in (1, 2)]
    steps += [Step(Job("gate beta=3", ["src.train"], tmp_path / "gate3"), {})]
    *_, first, second = eco.judge_gates(steps, [0.02], tmp_path)
    assert str(first).startswith("gate1 (beta 0.02): gate it")
    assert str(second).startswith("gate2 (beta 0.02): gate it")
    assert len(json.loads((tmp_path / "judge.json").read_text())["answers"]) == 2
    assert (tmp_path / "judge.png").is_file()
    few = write_table(tmp_path / "few/table", num_images=40)
    steps = [
        finished_job("exit table", few.parent),
        finished_job("gate beta=1", write_gate(tmp_path / "gate_few", few)),
    ]
    (line,) = eco.judge_gates(steps, [0.02], tmp_path)
    assert "gates not judged" in str(line)
    assert "3 images with a quality to judge on, expected 30" in str(line)
    assert eco.judge_gates(steps[:1], [0.02], tmp_path) == []


@pytest.mark.slow
def test_a_chain_ends_in_scores(tmp_path: Path) -> None:
    """From nothing to what the gate brings on the validation images, beside every exit of the parent."""
    tiny = [*TINY_SHAPES, *SMALL_MODEL, "data.train.num_scenes=20", "task.postprocess.object_threshold=0.0"]
    where = [f"hydra.run.dir={tmp_path}", "at_once=2"]
    launch("src.eco", PARENT, *tiny, *where, "betas=[0.01]", "gates.trainer.max_epochs=1")
    with open(tmp_path / "table.csv") as file:
        rows = [(row["job"], row["status"], row["exit"]) for row in csv.DictReader(file)]
    assert rows[:5] == [*(("parent", "done", str(depth)) for depth in (1, 2, 3, 4)), ("exit table", "done", "")]
    assert rows[5] == ("gate beta=0.01", "done", "gate")
    assert rows[-1] == ("scores beta=0.01", "done", "gate")
