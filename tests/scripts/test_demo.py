"""The demo, tiny, and the notebooks that read what it leaves."""

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.helpers import ROOT, launch

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TINY = ["batch_size=2", "trainer.accelerator=cpu", "data.val.num_scenes=9", "task.criterion.num_points=64"]

notebooks = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo leaves after two steps."""
    folder = tmp_path_factory.mktemp("demo")
    launch("scripts.demo", "--folder", str(folder), "--steps", "2", "--num-timed", "2", *TINY)
    return folder


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a kernel that is the Python of this test."""
    folder = tmp_path / "jupyter/kernels/this"
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "this", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return folder.name


def execute(file: Path, kernel: str) -> list[Any]:
    """What a notebook shows, run from top to bottom where it lies."""
    notebook = nbformat.read(file, as_version=4)
    place = {"metadata": {"path": str(file.parent)}}
    NotebookClient(notebook, timeout=120, kernel_name=kernel, resources=place).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_every_exit_is_compared(demo: Path) -> None:
    """A row for each exit of each model with its own cost, and a picture of as many scenes as there are, at most 8."""
    rows = list(csv.DictReader((demo / "table.csv").open()))
    exits = [("Mask2Former", "3"), ("PRO-SCALE", "3"), *(("ECO-M2F", depth) for depth in "1234")]
    assert [(row["model"], row["exit"]) for row in rows] == exits
    totals = [float(row["total GFLOPs"]) for row in rows]
    assert totals[2:] == sorted(set(totals[2:]))
    assert totals[1] < totals[0] == totals[4]  # three layers of three levels, with exits or without
    assert all(float(row["s / image"]) > 0 for row in rows)
    assert len(list((demo / "pictures").glob("*.png"))) == 8


@notebooks
def test_a_notebook_runs_from_top_to_bottom(
    file: Path, demo: Path, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows pictures and tables of the demo's results, and nothing is complained of."""
    monkeypatch.setenv("ECOSCALE_DEMO", str(demo))
    outputs = execute(file, kernel)
    shown: list[Mapping[str, Any]] = [output.data for output in outputs if "data" in output]
    assert any("image/png" in data for data in shown)
    assert any("<pre" in data.get("text/html", "") for data in shown)
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


@notebooks
def test_without_results_a_notebook_says_what_to_run(
    file: Path, tmp_path: Path, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names the folder and the command."""
    monkeypatch.setenv("ECOSCALE_DEMO", str(tmp_path / "nothing"))
    with pytest.raises(CellExecutionError) as error:
        execute(file, kernel)
    assert error.value.ename == "SystemExit"
    assert f"error: {tmp_path / 'nothing'}: no " in error.value.evalue
    assert "`make demo`" in error.value.evalue


@notebooks
def test_a_notebook_holds_no_output(file: Path) -> None:
    """What is kept is what was written, not what came of it once."""
    for cell in json.loads(file.read_text())["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
