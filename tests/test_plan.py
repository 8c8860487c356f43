"""`python -m src.plan`: the best of what runs have scored, within a budget."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from src.plan import main
from src.records.latency_table import LatencyTable, Row, update
from tests.reporting.made_up import write_model
from tests.test_layers import imports

Capture = pytest.CaptureFixture[str]
MACHINE = "x86_64, A Processor, 2 threads"


def ask(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["plan", *map(str, words)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def write_times(run: Path, machine: str = MACHINE) -> None:
    """An exit takes 20 ms at 0.5 GFLOPs, 40 ms at 1."""
    rows = [Row((96, 96), 1, 0.5, 20.0, 19.0, 21.0, 9), Row((96, 96), 2, 1.0, 40.0, 39.0, 41.0, 9)]
    update(run / "latency.json", LatencyTable(machine, "torch 2.9", "float32", "2026-11-27", rows))


def configured(run: Path, *lines: str) -> Path:
    with (run / ".hydra/config.yaml").open("a") as config:
        config.write("".join(f"{line}\n" for line in lines))
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A parent with times, its evaluation at half the size, and one with a gate: 71 at 30 ms, between the exits."""
    folder = tmp_path / "runs"
    parent = write_model(folder / "parent", pq=70.0)
    (parent / "checkpoints").mkdir()
    (parent / "checkpoints/last.ckpt").touch()
    write_times(parent)
    weights = f"ckpt_path: {parent}/checkpoints/last.ckpt"
    exits = {
        str(depth): {"pq": 63.0 + depth, "total_gflops": 0.5 * depth, "image_gflops": 0.2 * depth} for depth in (1, 2)
    }
    small = configured(write_model(folder / "small", exits=exits), weights)
    config = (small / ".hydra/config.yaml").read_text()
    resize = "data:\n  resize:\n    short: 48\n    long: 48\n"
    (small / ".hydra/config.yaml").write_text(config.replace("data:\n", resize))
    (small / ".hydra/overrides.yaml").write_text("- +experiment=model\n- data.resize.short=48\n- data.resize.long=48\n")
    gate = {"pq": 70.8, "total_gflops": 0.75, "depth": 1.5, "share_exit1": 0.5, "share_exit2": 0.5, "beta": 0.01}
    gated = configured(write_model(folder / "gated", exits={}, gate=gate), weights, "gate: gate.ckpt", "beta: 0.01")
    (gated / "exits.csv").write_text("image_id,name,exit,gflops\n0,a,1,0.5\n1,b,2,1.0\n")
    return folder


@pytest.mark.parametrize(
    ("budget", "left_at", "words"),
    [
        ("budget_ms=50", "exit 2", ["ckpt_path={runs}/parent/checkpoints/last.ckpt", "exits=[2]"]),
        ("budget_ms=39.9", "gate, beta 0.01", ["gate=gate.ckpt", "budget_ms=39.9"]),
        ("budget_gflops=0.8", "gate, beta 0.01", ["gate=gate.ckpt", "budget_gflops=0.8"]),
        ("budget_ms=29", "exit 1", ["ckpt_path={runs}/parent/checkpoints/last.ckpt", "exits=[1]"]),
        ("budget_ms=19", "exit 2", ["data.resize.short=48", "data.resize.long=48", "exits=[2]"]),
        ("budget_ms=8", "exit 1", ["data.resize.short=48", "data.resize.long=48", "exits=[1]"]),
    ],
)
def test_the_best_within_the_budget(
    budget: str,
    left_at: str,
    words: list[str],
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    """With the command that exports it, on the screen and in both files."""
    assert ask(monkeypatch, runs, budget, f"out={tmp_path / 'plan'}") == 0
    content = json.loads((tmp_path / "plan/plan.json").read_text())
    (chosen,) = (row for row in content["candidates"] if row["chosen"])
    assert chosen["leaves at"] == left_at
    assert chosen["Pareto"]
    typed = shlex.split(content["command"])
    assert typed[:3] == ["python", "-m", "src.export"]
    assert {word.format(runs=runs) for word in words} <= set(typed)
    assert not [word for word in typed if "experiment" in word]  # the checkpoint has its own
    assert content["machine"] == MACHINE
    assert content["command"] in capsys.readouterr().out
    assert content["command"] in (tmp_path / "plan/plan.md").read_text()


def test_published_weights_are_exported_by_their_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """As they were evaluated, but for how that ran."""
    run = write_model(tmp_path / "run")
    given = ["+experiment=mask2former_coco", "model.weights=hub/name", "categories=coco_panoptic", "trainer.devices=1"]
    (run / ".hydra/overrides.yaml").write_text("".join(f"- {one}\n" for one in [*given, "exits=[1,2]"]))
    assert ask(monkeypatch, run, "budget_gflops=0.7") == 0
    command = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(command)[3:] == [*given[:3], "exits=[1]", "out=export"]


def test_all_candidates_are_listed(runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In order of cost, with times of the table for their own cost; a mean over its images for the gate."""
    ask(monkeypatch, runs, "budget_ms=50", f"out={tmp_path / 'plan'}")
    rows = json.loads((tmp_path / "plan/plan.json").read_text())["candidates"]
    found = [(Path(row["run"]).name, row["leaves at"], row["ms"], row["Pareto"]) for row in rows]
    assert [(name, left, pareto) for name, left, _, pareto in found] == [
        ("small", "exit 1", True),
        ("small", "exit 2", True),
        ("parent", "exit 1", True),
        ("gated", "gate, beta 0.01", True),
        ("parent", "exit 2", True),
    ]
    assert [ms for _, _, ms, _ in found] == pytest.approx([8, 16, 20, 30, 40], rel=1e-6)


def test_what_is_beaten_is_marked_so(runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A worse model of the same cost is no part of the Pareto set, and never chosen."""
    worse = write_model(runs / "worse", pq=60.0, seed=0)
    (worse / ".hydra/config.yaml").write_text((worse / ".hydra/config.yaml").read_text() + "lr: 0.1\n")
    write_times(worse)
    ask(monkeypatch, runs, "budget_ms=50", f"out={tmp_path / 'plan'}")
    rows = json.loads((tmp_path / "plan/plan.json").read_text())["candidates"]
    assert [row["Pareto"] for row in rows if Path(row["run"]).name == "worse"] == [False, False]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["{runs}", "budget_ms=5"],
            "budget_ms=5: the cheapest costs 8 (exit 1 of {runs}/small); expected that or more",
        ),
        (["{runs}", "budget_gflops=0.1"], "budget_gflops=0.1: the cheapest costs 0.2 (exit 1"),
        (["{runs}"], "no budget: expected one of budget_ms=N and budget_gflops=N"),
        (["{runs}", "budget_ms=5", "budget_gflops=5"], "budget_ms=5 and budget_gflops=5: expected one of"),
        (["{runs}", "budget_ms=fast"], "budget_ms=fast: expected a number above 0"),
        (["{runs}", "budget_ms=nan"], "budget_ms=nan: expected a number above 0"),
        (["{runs}", "budget=5"], "budget=5: no such setting or folder"),
        (["budget_ms=5"], "no folders of runs given"),
        (["{runs}/none", "budget_ms=5"], "no scores.json in these folders"),
        (["{runs}", "budget_ms=50", "machine=GPU"], "machine=GPU: no times of it; there are: x86_64"),
        (["{runs}", "budget_ms=50", "out=/proc/nowhere"], "out=/proc/nowhere"),
    ],
)
def test_mistakes_end_in_one_line(
    words: list[str], said: str, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """With exit status 2."""
    assert ask(monkeypatch, *(word.format(runs=runs) for word in words)) == 2
    errors = capsys.readouterr().err.splitlines()
    assert said.format(runs=runs) in errors[-1]
    assert len([line for line in errors if line.startswith("error: ")]) == 1


def test_runs_without_times_say_how_to_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """In GFLOPs they can be planned with nevertheless."""
    write_model(tmp_path / "runs/model")
    assert ask(monkeypatch, tmp_path / "runs", "budget_ms=50") == 2
    assert "none of these runs was timed; python -m src.measure" in capsys.readouterr().err
    assert ask(monkeypatch, tmp_path / "runs", "budget_gflops=0.6") == 0


def test_several_machines_are_told_apart(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """By a part of a name."""
    write_times(runs / "parent", "a GPU")
    assert ask(monkeypatch, runs, "budget_ms=50") == 2
    assert "times of several machines" in capsys.readouterr().err
    assert ask(monkeypatch, runs, "budget_ms=50", "machine=GPU") == 0


def test_other_images_are_not_compared(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    write_model(runs / "coco", data="coco")
    assert ask(monkeypatch, runs, "budget_gflops=50") == 2
    assert "different images or by different measures" in capsys.readouterr().err


def test_a_damaged_table_is_skipped(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """And said once, though three runs refer to it."""
    (runs / "parent/latency.json").write_text("{")
    assert ask(monkeypatch, runs, "budget_gflops=50") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "latency.json" in line]
    assert len(said) == 1
    assert said[0].startswith(f"skipped: {runs}/parent/latency.json: ")


def test_it_does_without_torch() -> None:
    """As reports do: it starts at once, on a machine that has none."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, src.plan; sys.exit('torch' in sys.modules)"], check=False, timeout=60
    )
    assert done.returncode == 0
    assert not any(name.startswith("src.config") for name in imports(Path("src/plan.py").resolve()))
