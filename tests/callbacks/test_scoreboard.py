"""The table of scores and what is kept of it."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from src.callbacks.scoreboard import Scoreboard, scores, table_of
from src.metrics.cost import Cost
from src.records.provenance import made_by

COSTS = {depth: Cost(1.0, 0.5, (0.25,) * depth, 0, 0, 0, 0, 2.0, 0, 0, 0, 0) for depth in (2, 4)}
EXITS = {"val/pq/exit2": 40.0, "val/miou/exit2": 50.0, "val/pq/exit4": 44.0, "val/miou/exit4": 52.0}
GATE = {
    "val/pq/gate": 43.0,
    "val/miou/gate": 51.0,
    "val/depth/gate": 2.5,
    "val/image_gflops/gate": 7.125,
    "val/share_exit2/gate": 0.75,
    "val/share_exit4/gate": 0.25,
    "val/beta/gate": 0.02,
}
CLASSES = {"exit2": {"sky": {"pq": 40.0}}}
WHOLE = {"val/pq": 44.0, "val/quality": 44.0, "train/loss": 1.0}


def trainer_of(logged: dict[str, float], **others: Any) -> Any:
    metrics = {name: torch.tensor(value) for name, value in logged.items()}
    state = SimpleNamespace(fn="validate")
    trainer = {"is_global_zero": True, "sanity_checking": False, "callback_metrics": metrics, "state": state}
    trainer |= {"strategy": SimpleNamespace(root_device=torch.device("cpu")), "world_size": 1, "loggers": []}
    return SimpleNamespace(**{**trainer, **others})


def show(file: Path, trainer: Any) -> str:
    """What is printed after a validation."""
    board = Scoreboard(str(file), [64, 96])
    board.costs, board.console = COSTS, Console(file=io.StringIO(), width=200)
    board.on_validation_start(trainer, None)
    board.on_validation_end(trainer, SimpleNamespace(global_step=7, by_class=CLASSES))
    return board.console.file.getvalue()  # type: ignore[attr-defined]


def kept(file: Path) -> Any:
    return json.loads(file.read_text())


def row_of(printed: str, name: str) -> list[str]:
    """The cells behind a row's name."""
    (line,) = (line for line in printed.splitlines() if line.strip("│ ").startswith(f"{name} "))
    return [cell.strip() for cell in line.strip("│ ").split("│")][1:]


def test_the_scores_of_exits_are_kept_beside_their_cost(tmp_path: Path) -> None:
    """Under the depth, with what the encoder costs and all; no gate where there is none."""
    printed = show(tmp_path / "new" / "scores.json", trainer_of(EXITS | WHOLE))
    content = kept(tmp_path / "new" / "scores.json")
    assert content.pop("made_by") == made_by(torch.device("cpu"))
    assert content == {
        "step": 7,
        "image_size": [64, 96],
        "exits": {
            "2": {"pq": 40.0, "miou": 50.0, "encoder_gflops": 1.0, "total_gflops": 4.0},
            "4": {"pq": 44.0, "miou": 52.0, "encoder_gflops": 1.5, "total_gflops": 4.5},
        },
        "classes": CLASSES,
    }
    assert row_of(printed, "4") == ["44", "52", "1.5", "4.5"]
    assert "leave at" not in printed


def test_the_scores_of_a_gate_are_kept(tmp_path: Path) -> None:
    """Under its name; costs at one size by its shares, those of the images as logged; below it where images leave."""
    printed = show(tmp_path / "scores.json", trainer_of(GATE | WHOLE))
    content = kept(tmp_path / "scores.json")
    assert content["exits"] == {}
    logged = {name.split("/")[1]: value for name, value in GATE.items()}
    by_shares = {"encoder_gflops": 0.75 * 1.0 + 0.25 * 1.5, "total_gflops": 0.75 * 4.0 + 0.25 * 4.5}
    assert content["gate"] == pytest.approx(logged | by_shares)
    assert row_of(printed, "gate") == ["43", "51", "2.5", "1.125", "4.125", "7.125"]
    assert "leave at exit 2: 75 %, 4: 25 %" in printed


def test_only_rows_are_scores() -> None:
    """What is logged of the whole run, or of anything else, is left out."""
    found = scores(trainer_of({**EXITS, **WHOLE, "val/pq/exit": 1.0, "val/pq/gates": 1.0, "test/pq/gate": 1.0}))
    assert found == {"exit2": {"pq": 40.0, "miou": 50.0}, "exit4": {"pq": 44.0, "miou": 52.0}}


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    """AP of a size that no annotated thing has, which is logged as nan: JSON has no such number."""
    show(tmp_path / "scores.json", trainer_of(EXITS | {"val/ap_large/exit2": float("nan"), "val/ap_small/exit2": 0.0}))
    assert "NaN" not in (tmp_path / "scores.json").read_text()
    assert kept(tmp_path / "scores.json")["exits"]["2"].keys() & {"ap_large", "ap_small"} == {"ap_small"}


def test_a_score_of_nothing_is_none(tmp_path: Path) -> None:
    """Nothing annotated gives neither nan nor a number; a score that was not asked for has no column."""
    nothing = {f"val/{name}/exit2": float("nan") for name in ("pq", "sq", "pq_things")}
    printed = show(tmp_path / "scores.json", trainer_of(nothing | {"val/miou/exit2": 50.0}))
    assert row_of(printed, "2") == ["nothing to score", "50", "1", "4"]
    assert "nan" not in printed
    assert kept(tmp_path / "scores.json")["exits"]["2"].keys() == {"miou", "encoder_gflops", "total_gflops"}


@pytest.mark.parametrize("others", [{"is_global_zero": False}, {"sanity_checking": True}])
def test_nothing_is_kept_by_others(others: dict[str, bool], tmp_path: Path) -> None:
    """Further processes, and the check before training, write and print nothing."""
    assert show(tmp_path / "scores.json", trainer_of(GATE, **others)) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_validation_while_training_says_its_step(tmp_path: Path) -> None:
    """In the title."""
    printed = show(tmp_path / "scores.json", trainer_of(EXITS, state=SimpleNamespace(fn="fit")))
    assert "validation at step 7" in printed


def test_shares_are_whole_percents() -> None:
    """An exit that no image took is shown too."""
    table = table_of({"gate": {"pq": 1.0, "share_exit1": 0.0, "share_exit10": 2 / 3, "share_exit12": 1 / 3}}, "t")
    assert table.caption == "leave at exit 1: 0 %, 10: 67 %, 12: 33 %"
