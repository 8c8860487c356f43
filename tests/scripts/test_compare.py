import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scripts import compare
from src.config.command_line import configure
from src.jobs.job import Job

SCORES = {"encoder_gflops": 1.0, "total_gflops": 2.0, "image_gflops": 2.5}


def write(place: Path, exits: Sequence[int], miou: float, gate: float | None = None) -> None:
    place.mkdir(parents=True)
    content: dict[str, Any] = {"exits": {str(depth): {"miou": miou + depth, **SCORES} for depth in exits}}
    if gate is not None:
        content["gate"] = {"miou": gate, **SCORES}
    (place / "scores.json").write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.parametrize("data", compare.TEST)
def test_jobs_are_commands_that_compose(data: str, tmp_path: Path) -> None:
    """Each model is trained with its seed, then scored on the test split; a parent has its gates trained and scored."""
    for name, model in compare.models_on(data).items():
        run = tmp_path / name / "seed7"
        *before, train, test = compare.jobs_of(model, 7, run, ["trainer.max_steps=3"])
        cfg = configure([argument for argument in train.arguments[1:] if not argument.startswith("model.weights=")])
        assert [job.folder for job in before] == ([tmp_path / "mask2former/seed7/train"] if name == "eco" else [])
        assert train.after == tuple(job.name for job in before)
        assert (cfg.seed, cfg.trainer.max_steps, train.steps) == (7, 3, 3)
        assert test.after == (train.name,)
        assert ("data=camvid_test" in test.arguments) == (data == "camvid")
        assert test.arguments[0] == ("src.eco" if name == "eco" else "src.evaluate")
        assert any(f"{run}/train/checkpoints/last.ckpt" in argument for argument in test.arguments)


@pytest.mark.slow
def test_the_table_has_every_seed_exit_and_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Means over seeds; the scores of a gate come from its own folder, those of exits from the parent's."""

    def run_all(jobs: Sequence[Job], at_once: int) -> dict[str, str]:
        for job in jobs:
            place, seed = job.folder, int(job.folder.parent.name.removeprefix("seed"))
            if job.arguments[0] == "src.evaluate":
                write(place, [3], 50 + seed)
            elif job.arguments[0] == "src.eco":
                write(place / "parent", [1, 2, 3], 40 + seed)
                for number, beta in enumerate(compare.BETAS):
                    write(place / f"eco_gate_camvid/scores_beta={beta}", [1, 2, 3], 0, gate=30 + number + seed)
        return {}

    monkeypatch.setattr(compare, "run_all", run_all)
    monkeypatch.setattr(compare, "latencies_of", lambda runs, images: dict.fromkeys(NAMES, 0.5))
    compare.main(["camvid", "--models", "mask2former,eco", "--seeds", "0,2", "--folder", str(tmp_path), "batch_size=4"])
    with (tmp_path / "table.csv").open() as stream:
        rows = {(f"{row['model']}, {row['way']}", row["seed"]): float(row["miou"]) for row in csv.DictReader(stream)}
    assert {name for name, _ in rows} == set(NAMES)
    assert rows["Mask2Former, exit 3", "2"] == 55
    assert [rows[f"ECO-M2F, exit {depth}", "0"] for depth in (1, 2, 3)] == [41, 42, 43]
    assert [rows[f"ECO-M2F, gate, beta {beta}", "2"] for beta in compare.BETAS] == [32, 33, 34, 35]
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[2] == "| Mask2Former | exit 3 | 54.0 ± 1.4 | 53.0, 55.0 | 1.000 | 2.500 | 0.50 |"
    assert len(lines) == 2 + len(NAMES)


NAMES = ["Mask2Former, exit 3", *(f"ECO-M2F, exit {n}" for n in (1, 2, 3))]
NAMES += [f"ECO-M2F, gate, beta {beta}" for beta in compare.BETAS]


def test_mistakes_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--models", "maskformer"], ["--seeds", "one"]):
        with pytest.raises(SystemExit):
            compare.main(["camvid", *arguments])
    assert "'maskformer' is no model, expected some of mask2former" in (said := capsys.readouterr().err)
    assert "'one', expected whole numbers" in said
    with pytest.raises(SystemExit, match=r"error: .*batch_sise', did you mean 'batch_size"):
        compare.main(["nyuv2", "--folder", str(tmp_path), "batch_sise=4"])
