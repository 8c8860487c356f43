"""Scores by class and by size of things, and latencies, as a report has them."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from src.reporting import breakdown
from src.reporting.breakdown import breakdowns
from src.reporting.page import page
from src.reporting.points import Panel, panels
from src.reporting.runs import find
from tests.reporting.made_up import write_gate, write_json, write_model

CPU, GPU = ({"device": name} for name in ("CPU, 2 cores", "NVIDIA H100"))
BY_SEED = {  # PQ of a class by exit; the first needs depth, the second does not, the third no run always has
    0: {"sky": (80.123456, 80.0), "ring": (5.0, 12.345678), "star": (1.0, 2.0)},
    1: {"sky": (81.0, 80.5), "ring": (6.0, 12.0)},
}


def classes_of(seed: int) -> dict[str, Any]:
    return {
        f"exit{depth}": {name: {"pq": scores[depth - 1], "sq": 50.0} for name, scores in BY_SEED[seed].items()}
        for depth in (1, 2)
    }


def write_timed(folder: Path, latency: float, made_by: dict[str, str], **more: Any) -> Path:
    """A model whose second exit takes twice as long as its first."""
    exits = {str(depth): {"pq": 70.0 + depth, "total_gflops": depth, "latency_ms": latency * depth} for depth in (1, 2)}
    return write_model(folder, exits=exits, made_by=made_by, **more)


def rows_of(html: str) -> dict[str, list[str]]:
    """Cells of each row behind its name."""
    found = [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", html)]
    return {cells[0]: cells[1:] for cells in found if cells}


def shown(folder: Path) -> tuple[list[Panel], list[str]]:
    found = panels(find([folder])[0])
    return found, breakdowns(found)


def test_classes_are_averaged_over_seeds(tmp_path: Path) -> None:
    """Each exit, and the difference of the last and the first, of each seed by itself; what gains most first."""
    for seed in (0, 1):
        write_model(tmp_path / f"run{seed}", 70.0 + seed, seed, classes=classes_of(seed))
    _, (html,) = shown(tmp_path)
    rows = rows_of(html)
    assert list(rows) == ["mean over classes", "ring", "star", "sky"]
    assert rows["star"] == ["1.00", "2.00", "+1.00"]
    for name in ("ring", "sky"):
        first, last = ([BY_SEED[seed][name][place] for seed in (0, 1)] for place in (0, 1))
        gained = [after - before for before, after in zip(first, last, strict=True)]
        expected = [f"{statistics.mean(one):.2f} ± {statistics.stdev(one):.2f}" for one in (first, last)]
        assert rows[name] == [*expected, f"{statistics.mean(gained):+.2f} ± {statistics.stdev(gained):.2f}"]
    assert rows["mean over classes"] == ["70.50 ± 0.71", "71.50 ± 0.71", "+1.00 ± 0.00"]
    assert "<details><summary>By class, PQ" in html


@pytest.mark.parametrize("classes", [None, 7, {"exit1": 7}, {"exit1": {"sky": 7}}, {"exit1": {"sky": {"pq": "7"}}}])
def test_a_report_does_without_classes(classes: Any, tmp_path: Path) -> None:
    """As runs of before have none, and damaged ones none to be trusted."""
    write_model(tmp_path / "run", **({"classes": classes} if classes is not None else {}))
    (panel,), (html,) = shown(tmp_path)
    assert html == ""
    assert len(panel.points) == 2


def test_sizes_that_nobody_has_are_left_out(tmp_path: Path) -> None:
    """Not there, or not a number, as before."""
    scores = {"pq": 70.0, "ap": 40.0, "ap_small": 20.0, "ap_large": float("nan"), "total_gflops": 1.0}
    write_model(tmp_path / "run", exits={"1": scores, "2": scores | {"ap_small": 25.5}})
    _, (html,) = shown(tmp_path)
    assert list(rows_of(html).values()) == [["40.00", "40.00", "+0.00"], ["20.00", "25.50", "+5.50"]]


def test_a_page_has_as_many_classes_as_it_bears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other runs it says where they are."""
    for number in range(3):
        write_model(tmp_path / f"run{number}", classes=classes_of(0), image_size=[96, 96 + 32 * number])
    monkeypatch.setattr(breakdown, "CELLS", 40)  # two tables of four rows and four columns
    _, shown_by_panel = shown(tmp_path)
    assert ["ring" in html for html in shown_by_panel] == [True, True, False]
    assert "1 more in classes.csv" in shown_by_panel[2]


def test_latencies_of_classes_of_machine_stand_apart(tmp_path: Path) -> None:
    """A curve and columns for each, of all their seeds; the front and the colours are found as before."""
    write_timed(tmp_path / "cpu0", 40.0, CPU)
    write_timed(tmp_path / "cpu1", 50.0, CPU, seed=1)
    write_timed(tmp_path / "gpu2", 3.0, GPU, seed=2)
    runs, _ = find([tmp_path])
    (panel,) = panels(runs)
    timed = panel.timed()
    assert {device: [point.at[0] for point in one.points] for device, one in timed.items()} == {
        "CPU, 2 cores": [45.0, 90.0],
        "NVIDIA H100": [3.0, 6.0],
    }
    assert timed["CPU, 2 cores"].points[0].deviation("latency_ms") == statistics.stdev([40.0, 50.0])
    assert timed["CPU, 2 cores"].points[0].paces() == [0.5, 0.5]
    assert all(one.labels == panel.labels and len(one.front()) == 2 for one in timed.values())
    html = page(runs, [panel], [], "")
    assert html.count("<svg") == 3
    assert "<h3>latency on CPU, 2 cores</h3>" in html
    assert "<td>45.00 ± 7.07</td><td>0.50 ± 0.00</td><td>3.00</td><td>0.50</td>" in html


def test_without_latencies_there_is_one_curve(tmp_path: Path) -> None:
    """And no column."""
    write_model(tmp_path / "run")
    runs, _ = find([tmp_path])
    html = page(runs, panels(runs), [], "")
    assert html.count("<svg") == 1
    assert "<th>ms" not in html


def test_exits_that_were_timed_only_are_no_points(tmp_path: Path) -> None:
    """Beside a gate that was scored; its latency is compared with theirs."""
    exits = {str(depth): {"total_gflops": depth, "latency_ms": 4.0 * depth} for depth in (1, 2)}
    gate = {"pq": 70.0, "total_gflops": 1.5, "latency_ms": 6.0}
    write_model(tmp_path / "run", exits=exits, gate=gate, made_by=CPU)
    (panel,), _ = shown(tmp_path)
    (point,) = panel.points
    assert (point.policy, point.paces()) == ("gate", [0.75])
    write_json(tmp_path / "run/scores.json", {"exits": exits})
    assert "nothing to score: no pq or ap or miou" in find([tmp_path])[1][0].why


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ({"_target_": "src.data.coco.CocoPanoptic", "annotation_file": "x/panoptic_train2017.json"}, "COCO train2017"),
        (
            {"_target_": "src.data.shapes.Shapes", "num_scenes": 9, "size": 64, "seed": 3},
            "9 procedural scenes of 64x64",
        ),
        ({"split": "train"}, "their table: gates"),
        (None, "their table: gates"),
        (7, "their table: gates"),
    ],
)
def test_gates_are_titled_by_their_images(images: Any, said: str, tmp_path: Path) -> None:
    """By their experiment only where their file does not name them."""
    facts = {"num_holdout": 5, **({} if images is None else {"images": images})}
    write_gate(tmp_path / "run", **facts)
    (panel,), _ = shown(tmp_path)
    assert panel.title.startswith(f"Gates on 5 images held out of {said}")


def test_gates_of_different_qualities_are_apart(tmp_path: Path) -> None:
    """Scores and losses of the same images are not drawn against one axis."""
    for quality in ("score", "loss"):
        write_gate(tmp_path / quality, num_holdout=5, images={"split": "train"})
        file = tmp_path / quality / "gate.json"
        write_json(file, {**json.loads(file.read_text()), "quality": quality})
    panels, _ = shown(tmp_path)
    assert [panel.title.endswith("quality: minus the loss") for panel in panels].count(True) == 1
    assert len(panels) == 2
