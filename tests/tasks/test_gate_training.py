"""A gate learns from a table which exit to take."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from src.config.build import CPU, Experiment, build_run
from src.config.command_line import check
from src.metrics.budget import Budget
from src.metrics.exit_choice import best_exit, mean_cost
from src.records.latency_table import LatencyTable, Row, update
from src.system.machine import machine_of
from src.tasks.gate_checkpoint import GateCheckpoint
from src.tasks.gate_targets import as_they_are, centred_gains, gain_loss, least_squares, quality_loss
from src.tasks.gated_evaluation import beta_of, read_gate
from tests.tables import EXITS, write, write_noisy_table, write_table

Configure = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"))


def train(configure: Configure, table: Path, *overrides: str) -> Experiment:
    settings = ["batch_size=256", "trainer.enable_progress_bar=false", f"data.table={table}", *overrides]
    run = build_run(configure("+experiment=eco_gate_coco", *settings))
    run.trainer.fit(run.task, run.data)
    return run


def report(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "run" / "gate.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("target", ["exit", "soft", "quality", "gain"])
def test_every_target_beats_chance(target: str, configure: Configure, table: Path, tmp_path: Path) -> None:
    """On images not trained on, and by far; the numbers are kept."""
    hidden = {"quality": ["task.gate.hidden=32"]}.get(target, [])  # qualities are not linear in the input
    train(configure, table, f"task.target={target}", "beta=0.02", *hidden)
    scores = report(tmp_path)
    utility = {who: one["utility"] for who, one in scores["outcomes"].items()}
    assert list(utility) == ["gate", "random", "oracle", *(f"exit{depth}" for depth in EXITS)]
    assert max(value for who, value in utility.items() if who not in ("gate", "oracle")) < utility["gate"]
    assert utility["gate"] <= utility["oracle"]
    assert scores["regret"] == pytest.approx(utility["oracle"] - utility["gate"])
    assert scores["regret"] < 0.2 * (utility["oracle"] - utility["random"])
    assert (scores["num_unlabelled"], scores["num_train"], scores["num_holdout"]) == (7, 1794, 199)
    assert sum(scores["labels"].values()) == 1794
    assert sum(scores["taken"].values()) == 199
    assert set(scores["made_by"]) == {"git", "torch", "device"}
    assert scores["images"]["split"] == "train"


def test_a_trained_gate_is_judged_on_its_holdout(configure: Configure, table: Path, tmp_path: Path) -> None:
    """With leads, their intervals and a verdict in gate.json and in the logs; on a few images it is not."""
    train(configure, table, "beta=0.02", "trainer.max_epochs=6")
    scores = report(tmp_path)
    utility = {who: one["utility"] for who, one in scores["outcomes"].items()}
    value, low, high = scores["figures"]["lead_over_chance"]
    assert value == pytest.approx(utility["gate"] - utility["random"], abs=1e-5)
    assert low < value < high
    assert scores["verdict"]["answer"] == "gate it"
    with (tmp_path / "run" / "metrics.csv").open() as stream:
        logged = [row["judge/lead/low"] for row in csv.DictReader(stream) if row["judge/lead/low"]]
    assert logged == [pytest.approx(str(scores["figures"]["lead"][1]))]
    train(configure, write_table(tmp_path / "small", 250), "beta=0.02", "trainer.max_epochs=1")
    assert "verdict" not in report(tmp_path)


@pytest.mark.slow
def test_gain_is_not_misled_by_noise(configure: Configure, tmp_path: Path) -> None:
    """Where the best exit of images is noise, and not the exit that is best for them on average."""
    table, utility = write_noisy_table(tmp_path / "table"), {}
    for target in ("exit", "gain"):
        train(configure, table, f"task.target={target}", "beta=0.005")
        scores = report(tmp_path)
        utility[target] = scores["outcomes"]["gate"]["utility"]
        fixed = max(scores["outcomes"][f"exit{depth}"]["utility"] for depth in EXITS)
    assert utility["exit"] < fixed + 0.005
    assert utility["gain"] > fixed + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("centre", ["mean", "median"])
def test_a_gate_of_gain_takes_any_beta_and_budget_later(
    centre: str, configure: Configure, table: Path, tmp_path: Path
) -> None:
    """From its checkpoint: the holdout costs no more for a larger beta, and meets each budget to within an image."""
    run = train(configure, table, "task.target=gain", "beta=0.02", f"task.centre={centre}", "trainer.max_epochs=5")
    file = str(tmp_path / "run" / "checkpoints" / "best.ckpt")
    saved, data = read_gate(file), cast(Any, run.data)
    rows = data.rows[data.holdout]
    scores, cost = saved.gate.score(rows["inputs"]), rows["cost"]
    torch.testing.assert_close(scores, saved.rows.scores, atol=1e-5, rtol=1e-4)
    assert torch.equal(rows["quality"], saved.rows.quality)
    assert saved.about.price == beta_of(saved, file, None, None) == beta_of(saved, file, 0.02, None)
    costs = [mean_cost(scores, cost, EXITS, beta_of(saved, file, beta, None)) for beta in (0, 0.02, 0.06, 0.09, 0.2)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[2] > costs[-1] == 140
    for budget in range(145, 220, 8):
        found = mean_cost(saved.rows.scores, cost, EXITS, beta_of(saved, file, None, Budget(budget)))
        assert 0 <= budget - found <= 80 / len(cost)


def test_gains_are_centred() -> None:
    """By the mean or the median of the rows; a mean distance from it is 1."""
    quality = torch.tensor([[0.1, 0.1, 0.5], [0.1, 0.1, 0.4], [0.1, 0.4, 0.4]])
    for centre, middle in (("mean", [0.1, 0.7 / 3]), ("median", [0.0, 0.3])):
        unit = centred_gains(quality, centre)
        assert unit.centre == pytest.approx([0, middle[0], sum(middle)])
        gain = ((quality - torch.tensor(unit.centre)) / unit.scale).diff(dim=1)
        assert float(gain.abs().mean()) == pytest.approx(1)
    with pytest.raises(ValueError, match="1 exit in the table, expected two or more"):
        centred_gains(quality[:, :1], "mean")


def test_a_miss_weighs_what_it_costs() -> None:
    """The loss of going on is the gain that it brings, shared out by a sigmoid; where nothing is gained, it is free."""
    scores, quality = torch.tensor([[0.0, 30.0, 30.0]]), torch.tensor([[0.2, 0.5, 0.4]])
    assert gain_loss(scores, quality, EXITS[:3], 0.0, 1.0) == pytest.approx(-(0.3 - 0.1 / 2) / 2)
    assert gain_loss(-scores, quality, EXITS[:3], 0.0, 1.0) == pytest.approx(0.1 / 2 / 2)
    assert gain_loss(scores, torch.ones(1, 3), EXITS[:3], 0.0, 1.0) == 0


def test_scores_become_gains_by_their_lines() -> None:
    """Least squares find the lines that gains were made of; one that would fall is flat. Others leave scores alone."""
    torch.manual_seed(0)
    scores = torch.randn(50, 4)
    slope, offset = torch.tensor([0.5, 2.0, -1.0]), torch.tensor([0.1, -0.2, 0.3])
    gain = scores.diff(dim=1) * slope + offset
    quality = torch.cat([torch.zeros(50, 1), gain.cumsum(1)], 1)
    lines = least_squares(zip(scores.split(8), quality.split(8), strict=True), 4)
    assert lines.slope == pytest.approx([0.5, 2.0, 0.0], abs=1e-5)
    assert lines.offset == pytest.approx([0.1, -0.2, float(gain[:, 2].mean())], abs=1e-5)
    matrix, shift = lines.matrix()
    torch.testing.assert_close((scores @ matrix.T + shift).diff(dim=1)[:, :2], gain[:, :2])
    matrix, shift = as_they_are((), 4).matrix()
    assert torch.equal(matrix, torch.eye(4))
    assert not shift.any()


@pytest.mark.parametrize("exits", [[2, 4, 6], [3, 6]])
def test_inputs_that_look_back_are_of_the_first_exit_of_the_table(
    exits: list[int], configure: Configure, tmp_path: Path
) -> None:
    """Also of a gate that does not have this exit; inputs may be of any width."""
    torch.manual_seed(0)
    inputs = {"mean32": torch.rand(50, 8), "first_masks": torch.rand(50, 20)}
    write(tmp_path / "table", torch.rand(50, 5), inputs)
    settings = ["task.gate.inputs=[first_masks,mean32]", f"exits={exits}", "trainer.max_epochs=1"]
    train(configure, tmp_path / "table", *settings)
    gate = read_gate(str(tmp_path / "run" / "checkpoints" / "best.ckpt")).gate
    assert (gate.widths, gate.exits, gate.after) == ([20, 8], exits, 2)


@pytest.mark.slow
def test_a_checkpoint_says_all_that_runs_a_gate(configure: Configure, table: Path, tmp_path: Path) -> None:
    """Plain values, weights and moments; and of a gate of qualities, what turns another beta into other exits."""
    train(configure, table, "task.target=quality", "task.gate.hidden=32", "beta=0.02")
    saved = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    gate = saved["hyper_parameters"]["gate"]
    assert {name: gate[name] for name in ("inputs", "dim", "hidden", "exits", "target", "beta", "segmentation")} == {
        "inputs": ["mean32"],
        "dim": [8],
        "hidden": 32,
        "exits": EXITS,
        "target": "quality",
        "beta": 0.02,
        "segmentation": "panoptic",
    }
    assert (gate["parent"], gate["source"]) == ("f" * 64, "made up")
    state = saved["state_dict"]
    assert {"mean", "std", "gate.head.weight", "gate.head.bias"} <= set(state)
    depths = [
        torch.tensor(EXITS)[best_exit(state["holdout_scores"], EXITS, beta)].double().mean()
        for beta in (0.0, 0.02, 0.05, 0.2)
    ]
    assert depths == sorted(depths, reverse=True)
    assert depths[0] > depths[1] > depths[3] == 2


@pytest.mark.slow
@pytest.mark.parametrize("target", ["exit", "quality", "gain"])
def test_a_budget_is_kept_to(target: str, configure: Configure, table: Path, tmp_path: Path) -> None:
    """The beta found for it is kept, and the gate's mean cost is near."""
    train(configure, table, f"task.target={target}", "task.gate.hidden=32", "budget_gflops=170")
    scores = report(tmp_path)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["gate"]["beta"] == scores["beta"] > 0
    assert scores["outcomes"]["gate"]["gflops"] == pytest.approx(170, abs=3)


def test_a_budget_that_cannot_be_is_refused(configure: Configure, table: Path) -> None:
    """With the range that can."""
    with pytest.raises(ValueError, match=r"budget_gflops=90: expected 140 .* to 220"):
        train(configure, table, "budget_gflops=90")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["exit", "gain"])
def test_a_budget_in_milliseconds_is_kept_to(target: str, configure: Configure, table: Path, tmp_path: Path) -> None:
    """By a table in which an exit takes 9 ms and its depth for a GFLOP."""
    rows = [Row((64, 64), depth, 1.0, 9.0 + depth, 9.0, 30.0, 3) for depth in EXITS]
    update(file := tmp_path / "times.json", LatencyTable(machine_of(CPU), "torch 2", "float32", "today", rows))
    run = train(configure, table, f"task.target={target}", "budget_ms=2200", f"latency={file}")
    task, costs = cast(Any, run.task), report(tmp_path)["outcomes"]
    cost = task.budget.costs(task.holdout["cost"], EXITS)
    assert float(cost[:, 0].mean()) == pytest.approx((9 + EXITS[0]) * costs[f"exit{EXITS[0]}"]["gflops"], rel=1e-4)
    spent = float(cost.gather(1, task.holdout["choice"][:, None]).mean())
    assert spent == pytest.approx(2200, abs=60 if target == "exit" else 30)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["budget_ms=9"],
            "budget_ms=9: no run folder has the times of made up; expected latency=FILE, of python -m src.m",
        ),
        (["budget_ms=9", "latency=none.json"], "latency=none.json: no such file; python -m src.measure"),
        (["budget_gflops=170", "budget_per_image=true"], "budget_per_image=true: gates keep to it when they run"),
        (["budget_gflops=170", "beta=0.1"], "beta=0.1 and budget_gflops=170"),
    ],
)
def test_budgets_that_a_training_refuses(
    overrides: list[str], said: str, configure: Configure, table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In one line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError, InstantiationException)) as error:
        train(configure, table, *overrides)
    assert re.search(said, str(error.value.__cause__ or error.value))


def test_one_seed_gives_one_gate(configure: Configure, table: Path) -> None:
    """Two runs end with equal weights; another seed with others."""
    one, two, other = (
        train(configure, table, f"seed={seed}", "trainer.max_epochs=3").task.gate.state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_a_resumed_run_repeats_an_unbroken_one(configure: Configure, table: Path, tmp_path: Path) -> None:
    """Epoch by epoch."""
    unbroken = train(configure, table, "trainer.max_epochs=4").task.gate.head.weight
    train(configure, table, "trainer.max_epochs=2")
    run = build_run(
        configure("+experiment=eco_gate_coco", "batch_size=256", f"data.table={table}", "trainer.max_epochs=4")
    )
    run.trainer.fit(run.task, run.data, ckpt_path=str(tmp_path / "run/checkpoints/last.ckpt"), weights_only=True)
    assert torch.equal(run.task.gate.head.weight, unbroken)


def test_a_resumed_run_still_has_to_beat_the_best_epoch(configure: Configure, table: Path, tmp_path: Path) -> None:
    """The report of a run that gets worse after it was broken off is that of before."""
    train(configure, table, "trainer.max_epochs=3")
    before = report(tmp_path)
    run = build_run(
        configure("+experiment=eco_gate_coco", "batch_size=256", f"data.table={table}", "trainer.max_epochs=4", "lr=10")
    )
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    last["optimizer_states"][0]["param_groups"][0]["lr"] = 1e3
    torch.save(last, tmp_path / "worse.ckpt")
    run.trainer.fit(run.task, run.data, ckpt_path=str(tmp_path / "worse.ckpt"), weights_only=True)
    assert report(tmp_path) == before


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["beta=0.5"], "beta 0.02, this one has 0.5"),
        (["task.target=soft"], "target exit, this one has soft"),
        (["exits=[2,3,4,5]"], r"exits \[2, 3, 4, 5, 6\], this one has \[2, 3, 4, 5\]"),
        (["task.gate.hidden=4"], "hidden 0, this one has 4"),
    ],
)
def test_another_gate_is_not_resumed(
    overrides: list[str], said: str, configure: Configure, table: Path, tmp_path: Path
) -> None:
    """Its checkpoint would go on under a false name."""
    train(configure, table, "trainer.max_epochs=1", "beta=0.02")
    run = build_run(configure("+experiment=eco_gate_coco", f"data.table={table}", "beta=0.02", *overrides))
    with pytest.raises(ValueError, match=said):
        run.trainer.fit(run.task, run.data, ckpt_path=str(tmp_path / "run/checkpoints/last.ckpt"), weights_only=True)


def test_a_gate_knows_which_quality_it_learnt(configure: Configure, table: Path, tmp_path: Path) -> None:
    """Its checkpoint and its report say so, and it does not go on with a table of another quality."""
    train(configure, table, "trainer.max_epochs=1")
    last = str(tmp_path / "run/checkpoints/last.ckpt")
    other = write_table(tmp_path / "loss", settings={"task.quality": "loss"})
    run = build_run(configure("+experiment=eco_gate_coco", f"data.table={other}"))
    assert run.task.hparams["gate"]["quality"] == "loss"
    with pytest.raises(ValueError, match="a gate with quality score, this one has loss"):
        run.trainer.fit(run.task, run.data, ckpt_path=last, weights_only=True)
    assert report(tmp_path)["quality"] == "score"
    content = torch.load(last, weights_only=True)
    gate = content["hyper_parameters"]["gate"]
    assert GateCheckpoint.from_dict(gate).quality == "score"
    del gate["quality"]  # as before there was another
    assert GateCheckpoint.from_dict(gate).quality == "score"
    torch.save(content, last)
    again = build_run(configure("+experiment=eco_gate_coco", f"data.table={table}", "trainer.max_epochs=1"))
    again.trainer.fit(again.task, again.data, ckpt_path=last, weights_only=True)


def test_scores_that_are_not_finite_end_training(configure: Configure, table: Path, tmp_path: Path) -> None:
    """With a word on what to change, and no checkpoint of them."""
    with pytest.raises(FloatingPointError, match="smaller lr"):
        train(configure, table, "task.target=soft", "task.temperature=1e-320", "trainer.max_epochs=2")
    assert not (tmp_path / "run/checkpoints/best.ckpt").exists()


def test_the_lots_of_hard_images_are_not_learnt() -> None:
    """The loss of qualities is of their differences: images that are harder at every exit cost nothing."""
    quality = torch.rand(5, 3)
    assert quality_loss(quality + torch.rand(5, 1), quality, EXITS[:3], 0.0, 1.0) == pytest.approx(0, abs=1e-12)
    assert quality_loss(torch.zeros(5, 3), quality, EXITS[:3], 0.0, 1.0) > 0.01


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task.gate.inputs=[mean32,mean32]", "none twice"),
        ("task.gate.inputs=[]", "none twice"),
        ("task.gate.inputs=mean32", "a list of gate inputs"),
        ("task.gate.hidden=-1", "a whole number from 0"),
        ("beta=-1", "beta=-1: expected a number, 0 or more"),
        ("beta=.inf", "beta=.inf: expected"),
        ("task.target=best", "expected exit, soft, quality or gain"),
        ("task.centre=mode", "expected mean or median"),
        ("task.temperature=0", "temperature=0: expected a number above 0"),
        ("data.holdout=1", "expected a number above 0 and below 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_runs(
    override: str, said: str, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line."""
    with pytest.raises(SystemExit):
        check(["+experiment=eco_gate_coco", f"data.table={table}", override])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("exits=[2,9]", r"\[2, 9\].*\[2, 3, 4, 5, 6\]"),
        ("task.gate.inputs=[mean8]", "mean8.*mean32"),
        ("data.table=null", "data.table=null: expected .* src.label writes one"),
    ],
)
def test_what_the_table_lacks_is_refused(override: str, said: str, configure: Configure, table: Path) -> None:
    """Naming what was asked for and what there is."""
    with pytest.raises(InstantiationException) as error:
        build_run(configure("+experiment=eco_gate_coco", f"data.table={table}", override))
    with pytest.raises(ValueError, match=said):
        raise error.value.__cause__  # type: ignore[misc]
