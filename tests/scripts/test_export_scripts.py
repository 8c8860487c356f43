"""Scripts that score exports and time them, on made exports."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from scripts import benchmark_export, same_logits
from scripts.score_export import keep as keep_scores
from scripts.score_export import main as score_export
from scripts.score_export import scored
from src.data.scenes import Scenes
from src.data.targets import Category, Sample, Truth
from src.exporting.runtime import Router, keep, measure
from src.reporting.plan import Budget, candidates, choose, command, machine_of
from src.reporting.runs import find
from tests.exporting.tiny_export import EXITS, write_export

NAMES = ("cat", "sky", "dog", "sea")


class Answered(Scenes):
    """Photos whose truth is what an export finds in them at one exit."""

    def __init__(self, folder: Path, depth: int, names: tuple[str, ...] = NAMES):
        self.categories = [Category(10 + i, name, i % 2 == 0, (0, 0, 0)) for i, name in enumerate(names)]
        self.photos = np.random.default_rng(0).integers(0, 255, (4, 64, 96, 3), np.uint8)
        self.answers = Router(folder, exit=depth, threads=1)(list(self.photos))

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Sample:
        found = self.answers[index].panoptic
        assert found is not None
        number = len(found.labels)
        truth = Truth(
            torch.from_numpy(found.ids)[None],
            torch.from_numpy(found.labels),
            torch.zeros(number, dtype=torch.bool),
            torch.from_numpy(np.bincount(found.ids.ravel(), minlength=number + 1)[1:].astype(np.float32)),
        )
        return Sample(torch.from_numpy(self.photos[index]).permute(2, 0, 1), truth, index, str(index))


def test_an_exit_scores_as_what_it_finds(tmp_path: Path) -> None:
    """Where the truth is what exit 2 finds, it alone is perfect; the gate has a row too, and costs are its own."""
    folder = write_export(tmp_path / "tiny")
    rows = {policy.name: policy.row(folder) for policy in scored(folder, Answered(folder, 2), None, 1)}
    assert list(rows) == ["exit1", "exit2", "exit3", "gate"]
    assert rows["exit2"]["pq"] == pytest.approx(100)
    assert rows["exit1"]["pq"] < 99
    assert rows["exit1"]["GFLOPs"] < rows["exit2"]["GFLOPs"] < rows["exit3"]["GFLOPs"]
    assert {row["images"] for row in rows.values()} == {4}


def test_a_scored_export_is_planned_and_reported_like_a_run(tmp_path: Path) -> None:
    """By its own times and precision; what is chosen is run, since it is exported already."""
    folder = write_export(tmp_path / "tiny")
    policies = list(scored(folder, Answered(folder, 2), None, 1))
    cfg = OmegaConf.create({"name": "tiny", "data": {"val": {"_target_": "src.data.shapes.Shapes"}}, "trainer": {}})
    keep_scores(policies, tmp_path / "runs/tiny", folder, cfg, ["data=shapes"], 4)
    keep(measure(folder, None, 2, 1), folder)
    runs, skipped = find([tmp_path / "runs"])
    assert not skipped
    assert {*runs[0].scores} == {"exit1", "exit2", "exit3", "gate"}
    assert "4 of its batches" in runs[0].settings.data_set()
    _, found = candidates(runs, machine_of(runs, None))
    chosen = choose(found, Budget("budget_gflops", 1e9))
    assert (chosen.left_at, chosen.runs_in, chosen.quality) == ("exit 2", "onnxruntime, float32", pytest.approx(100))
    assert all(one.ms is not None for one in found)
    assert command(chosen, Budget("budget_ms", 9)) == f"python {folder}/runtime.py photos --exit=2"
    gate = next(one for one in found if one.policy == "gate")
    assert command(gate, Budget("budget_ms", 9)) == f"python {folder}/runtime.py photos --budget-ms=9"


class Echo:
    """A model in torch that gives what an export does, and at one exit something else."""

    def __init__(self, folder: Path, wrong: int | None):
        self.router, self.wrong, self.task = Router(folder, threads=1), wrong, SimpleNamespace(model=self)

    def __call__(self, images: torch.Tensor, exits: list[int], last_only: bool) -> dict[int, Any]:
        graph, found = self.router.manifest["graphs"][0], {}
        for depth in exits:
            (left,) = self.router.forward(images.numpy(), graph, same_logits.InTurn([depth]))
            logits = [torch.from_numpy(one)[None] for one in left[1:3]]
            found[depth] = [(logits[0], logits[1] + 5.0 * (depth == self.wrong))]
        return found


@pytest.mark.parametrize("form", ["split", "whole"])
def test_an_exit_that_differs_from_torch_is_found(form: str, tmp_path: Path) -> None:
    """Alone and in batches of mixed exits; the others are the same to the last bit."""
    folder = write_export(tmp_path / "tiny", form)
    for place, photo in enumerate(np.random.default_rng(0).integers(0, 255, (8, 64, 96, 3), np.uint8)):
        Image.fromarray(photo).save(tmp_path / f"{place}.png")
    files = sorted(tmp_path.glob("*.png"))
    rows = list(same_logits.compared(folder, Echo(folder, wrong=2), files))  # type: ignore[arg-type]
    assert {row["batch"] for row in rows} == {"1", "4, mixed exits"}
    assert {row["exit"] for row in rows if row["batch"] == "1"} == {*EXITS}
    assert sum(row["photos"] for row in rows if row["batch"] != "1") == len(files)
    for row in rows:
        wrong = row["exit"] == 2
        assert (row["mask"] > 1) == (row["other pixels"] > 0) == wrong
        assert row["above 1e-3"] == (row["photos"] if wrong else 0)


def test_exports_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """They are refused before anything is scored."""
    folders = [str(write_export(tmp_path / place / "tiny")) for place in ("a", "b")]
    with pytest.raises(SystemExit, match="--out has a folder by each name"):
        score_export([*folders, "data=shapes", "--out", str(tmp_path / "runs")])


def test_data_of_other_classes_are_refused(tmp_path: Path) -> None:
    """The error names both."""
    folder = write_export(tmp_path / "tiny")
    with pytest.raises(ValueError, match=r"has the classes \['cat', .*expected the same"):
        list(scored(folder, Answered(folder, 2, ("a", "b", "c", "d")), None, 1))


def test_every_exit_is_timed_and_every_budget_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each exit; with times of this machine, one for each budget between the cheapest and dearest exit."""
    folder = write_export(tmp_path / "tiny")
    benchmark_export.main([str(folder), "--size", "64x96", "--rounds", "2"])
    assert capsys.readouterr().out.count("onnxruntime, float32 (tiny)") == len(EXITS)
    table = measure(folder, None, 2, 1)
    for row in table["rows"]:
        row["ms"] = 10.0 * row["gflops"]  # of graphs as small as these times are noise
    keep(table, folder)
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "photo.png")
    benchmark_export.main(
        [str(folder), "--photos", str(tmp_path / "photo.png"), "--budgets", "3", "--csv", str(tmp_path / "b.csv")]
    )
    assert len((tmp_path / "b.csv").read_text().splitlines()) == 4


def test_budgets_without_photos_are_refused(tmp_path: Path) -> None:
    """One line says what is missing."""
    with pytest.raises(SystemExit, match="expected --photos FOLDER"):
        benchmark_export.main([str(write_export(tmp_path / "tiny")), "--budgets", "3"])
