"""A gate learns from a table which exit to take."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from src.config.build import Experiment, build_run
from src.config.command_line import check
from src.metrics.exit_choice import best_exit
from src.tasks.gate_targets import quality_loss
from tests.tables import EXITS, write_table

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
@pytest.mark.parametrize("target", ["exit", "quality"])
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
