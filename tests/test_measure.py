"""`python -m src.measure`: what it keeps, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.exporting.runtime import this_machine
from src.measure import measure
from src.metrics.cost import count
from src.predictor import Predictor
from src.system.machine import machine_of
from tests.exporting.tiny_export import write_export
from tests.helpers import error_line
from tests.test_predict import EXITS, SETTINGS, save

Command = Callable[..., None]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    return save(SETTINGS, folder).rename(folder / "checkpoints" / "best.ckpt")


def tables(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text())["tables"]


def test_every_exit_at_every_size(command: Command, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the checkpoint's run, with what src.cost counts; budgets in milliseconds find it there."""
    file = checkpoint.parents[1] / "latency.json"
    file.unlink(missing_ok=True)
    sizes = [(64, 64), (64, 96)]
    asked = ["sizes=[[64,64],[64,96]]", "schedules=[[0,0,2]]", "rounds=2"]
    command(measure, "measure", f"ckpt_path={checkpoint}", *asked, "trainer.accelerator=cpu")
    (table,) = tables(file)
    assert table["machine"] == machine_of(torch.device("cpu"))
    assert (table["runtime"], table["precision"]) == (f"torch {torch.__version__}", "float32")
    rows = table["rows"]
    assert [(tuple(row["size"]), row["exit"]) for row in rows] == [(size, depth) for size in sizes for depth in EXITS]
    model = Predictor.load(checkpoint, "trainer.accelerator=cpu").task.model
    for row in rows:
        cost = count(model, row["size"], [row["exit"]])[row["exit"]].total
        assert row["gflops"] == pytest.approx(cost)
        assert 0 < row["low"] <= row["ms"] <= row["high"]
        assert row["rounds"] == 2
    (other,) = table["schedules"]
    assert other["schedule"] == [0, 0, 2]
    assert {row["exit"] for row in other["rows"]} == {1, 2}
    assert other["rows"][0]["gflops"] > rows[0]["gflops"]
    said = capsys.readouterr().out
    assert str(file) in said
    assert all(words in said for words in (table["machine"], "64x96", "1.000", "schedule 0 0 2"))
    deepest = max(row["ms"] for row in rows)
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    answer = Predictor.load(checkpoint, "trainer.accelerator=cpu", f"budget_ms={9 * deepest}")([image])[0]
    assert answer.exit == EXITS[-1]


def test_one_size_more_is_added_elsewhere(command: Command, checkpoint: Path, tmp_path: Path) -> None:
    """To the file that is named; the default size is image_size."""
    latency = f"latency={tmp_path / 'mine.json'}"
    for more in ("image_size=[64,64]", "sizes=[[32,64]]"):
        command(measure, "measure", f"ckpt_path={checkpoint}", latency, more, "rounds=1", "trainer.accelerator=cpu")
    (table,) = tables(tmp_path / "mine.json")
    assert sorted({tuple(row["size"]) for row in table["rows"]}) == [(32, 64), (64, 64)]


def test_an_export_is_timed_in_its_own_runtime(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every exit, kept in its folder; a folder that is none is refused."""
    folder = write_export(tmp_path / "export")
    command(measure, "measure", f"export={folder}", "rounds=2", "sizes=[[64,96]]")
    (table,) = tables(folder / "latency.json")
    assert table["runtime"].startswith("onnxruntime ")
    exits = json.loads((folder / "manifest.json").read_text())["exits"]
    assert [(row["size"], row["exit"]) for row in table["rows"]] == [([64, 96], depth) for depth in exits]
    capsys.readouterr()
    said = error_line(capsys, lambda: command(measure, "measure", f"export={tmp_path}"))
    assert str(tmp_path) in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sizes=annotations.json"], "sizes=annotations.json: expected a list of [height, width]"),
        (["sizes=[[5,5]]"], "sizes=[[5, 5]]: expected a list of [height, width], all from 32"),
        (["rounds=0"], "rounds=0: expected a whole number from 1"),
        (["schedules=[3,3]"], "schedules=[3, 3]: expected a list of schedules"),
        (["latency={file}"], "cannot be read, perhaps cut short"),
        (["ckpt_path=none.ckpt"], "ckpt_path=none.ckpt: no such file"),
        (["export=folder"], "export=folder: keeps its times in its folder"),
        (["ckpt_path=null"], "nothing to measure: give ckpt_path=FILE"),
        (["ckpt_path=null", "+experiment=proscale_shapes", "model.weights=none"], "none"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str],
    said: str,
    command: Command,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Before anything is timed."""
    (tmp_path / "file.json").write_text("{")
    given = [argument.format(file=tmp_path / "file.json") for argument in arguments]
    first = [] if any(one.startswith("ckpt_path") for one in given) else [f"ckpt_path={checkpoint}"]
    assert said in error_line(capsys, lambda: command(measure, "measure", *first, *given))


def test_an_export_and_torch_call_a_machine_the_same() -> None:
    """Their programs share no code; tables of one machine would else stand under two names."""
    threads = torch.get_num_threads()
    assert this_machine(threads) == machine_of(torch.device("cpu"))
