"""The best checkpoints of a run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from src.callbacks.best_checkpoint import BestCheckpoint, check_folder, file_name


def best(folder: Path, **settings: int) -> BestCheckpoint:
    return BestCheckpoint(str(folder), "val/quality", "max", ("val/quality", "max"), **settings)


def test_the_best_is_taken_along(tmp_path: Path) -> None:
    """Into another folder goes the file of the best score; of one that is gone, the score is forgotten."""
    before, after = best(tmp_path / "old"), best(tmp_path / "new")
    file = tmp_path / "old/best.ckpt"
    file.parent.mkdir()
    file.write_text("weights")
    before.best_k_models = {str(file): torch.tensor(3.0)}
    after.load_state_dict(before.state_dict())
    assert (tmp_path / "new/best.ckpt").read_text() == "weights"
    assert after.best_k_models == {str(tmp_path / "new/best.ckpt"): torch.tensor(3.0)}
    file.unlink()
    anew = best(tmp_path / "newer")
    anew.load_state_dict(before.state_dict())
    assert anew.best_k_models == {}


def test_names_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """Several have the step in their name, other scores their own."""
    assert best(tmp_path, save_top_k=2).filename == "best_step{step}"
    names = {
        file_name(score, mode, ("val/quality", "max")) for score in ("val/quality", "val/pq") for mode in ("min", "max")
    }
    assert len(names) == 4


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    with pytest.raises(OSError, match="cannot be written"):
        check_folder(tmp_path / "checkpoints")


@pytest.mark.parametrize("mode", ["max", "min"])
def test_nothing_to_score_is_neither_best_nor_worst(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest is kept until there is a score, which no nan takes the place of; it is said once."""
    keeper = BestCheckpoint(str(tmp_path), "val/quality", mode, ("val/quality", mode))
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=bool))
    kept = []
    for score in (float("nan"), float("nan"), 40.0, float("nan"), 30.0, 50.0):
        kept.append(keeper.check_monitor_top_k(trainer, torch.tensor(score)))
        if kept[-1]:
            worst = float("-inf" if mode == "max" else "inf")
            keeper.kth_best_model_path, keeper.kth_value = "best", torch.tensor(worst if score != score else score)
            keeper.best_k_models = {"best": keeper.kth_value}
    assert kept == [True, True, True, False, mode == "min", mode == "max"]
    assert capsys.readouterr().err.count("nothing to score") == 1
