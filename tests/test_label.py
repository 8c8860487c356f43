"""The command that labels: whose settings it takes, and what it refuses."""

from pathlib import Path

import pytest
import torch

from src.command_line import saved_overrides
from src.label import check_trained


def checkpoint(folder: Path, exits: list[int] | None) -> Path:
    """A file with the settings of a parent and nothing else."""
    config = {"exits": exits, "schedule": [0, 0, 6]}
    overrides = ["+experiment=eco_parent_shapes", "name=mine", "dim=32"]
    torch.save({"hyper_parameters": {"config": config, "overrides": overrides}}, file := folder / "last.ckpt")
    return file


def test_exits_the_parent_never_trained_are_refused(tmp_path: Path) -> None:
    """Some of those it was trained for are fine; without exits it was trained for the last layer."""
    file = str(checkpoint(tmp_path, [2, 4, 6]))
    check_trained(file, [2, 6])
    with pytest.raises(ValueError, match=r"exits=\[2, 3\]: .* was trained for \[2, 4, 6\]"):
        check_trained(file, [2, 3])
    file = str(checkpoint(tmp_path, None))
    check_trained(file, [6])
    with pytest.raises(ValueError, match=r"was trained for \[6\]"):
        check_trained(file, [5, 6])


def test_a_typed_experiment_takes_the_place_of_the_parents(tmp_path: Path) -> None:
    """Its other settings stay, its name does not; without that wish a typed experiment stands alone."""
    typed = ["+experiment=eco_oracle_shapes", f"ckpt_path={checkpoint(tmp_path, None)}"]
    assert saved_overrides(typed, below_experiment=True) == ["dim=32", *typed]
    assert saved_overrides(typed) == typed
