"""What a linear probe says of the parts of a model."""

import csv
from pathlib import Path

import pytest
import torch

from scripts import probe
from tests.test_predict import SETTINGS, save


def test_ridge_finds_what_is_there() -> None:
    """A class that is a threshold of the channels is predicted for new ones, one that is not is left to chance."""
    chance = torch.Generator().manual_seed(0)
    seen, new = torch.randn(2, 400, 8, generator=chance).unbind()
    direction, noise = torch.randn(8, generator=chance), torch.randn(400, generator=chance)
    classes = torch.stack([(seen @ direction > 1).float(), (noise > 0).float()], 1)
    scores = probe.ridge(seen * 5 + 3, classes, new * 5 + 3)  # units and zero of the channels do not matter
    shown, hidden = torch.corrcoef(torch.stack([new @ direction, *scores.T]))[0, 1:]
    assert shown > 0.97
    assert abs(hidden) < 0.5


@pytest.mark.slow
def test_every_part_is_probed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Backbone, projections and encoder at each exit; shapes are told apart by no random weights perfectly."""
    file = save(SETTINGS, tmp_path)
    scenes = ["data.train.num_scenes=40", "data.val.num_scenes=40"]
    probe.main([str(file), *scenes, "--train", "40", "--val", "30", "--csv", str(tmp_path / "probe.csv")])
    with (tmp_path / "probe.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["part"] for row in rows] == [
        *(f"backbone, stride {stride}" for stride in (32, 16, 8, 4)),
        *(
            f"{part}, stride {stride}"
            for part in ("projection", "exit 1", "exit 2", "exit 3")
            for stride in (32, 16, 8)
        ),
    ]
    assert all(0 < float(row["mean"]) < 100 for row in rows)
    assert "| exit 3, stride 8 |" in capsys.readouterr().out
    for arguments, message in (
        ([str(file), "--train", "4"], "--train 4 --val 400: no class is in 5"),
        ([str(tmp_path / "gone.ckpt")], "gone.ckpt"),
        ([str(file), "data.seeed=3"], "seeed"),
    ):
        with pytest.raises(SystemExit, match=message):
            probe.main(arguments)
