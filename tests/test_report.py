"""The report as one asks for it: files, exit status, and what is said of bad input."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from src.report import main
from src.reporting.gallery import early_and_late
from tests.reporting.made_up import write_gate, write_json, write_model, write_pictures

FILES = {"index.html", "curve.png", "table.csv", "classes.csv"}
Capture = pytest.CaptureFixture[str]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A model, a gate, and a gated evaluation of the model with pictures."""
    folder = tmp_path / "runs"
    maker = {"git": "abcdef123456+", "torch": "2.6", "device": "CPU, 2 cores"}
    classes = {"exit1": {"sky": {"pq": 81.98765432, "sq": 0.1 + 0.2}}, "exit2": {"sky": {"pq": 81.65432, "iou": 1 / 3}}}
    parent = write_model(folder / "model", made_by=maker, classes=classes)
    write_gate(folder / "gate")
    gate = {"pq": 70.5, "total_gflops": 0.8, "depth": 1.25, "share_exit1": 0.75, "share_exit2": 0.25, "beta": 0.0}
    gated = write_model(folder / "gated", exits={}, gate=gate)
    with open(gated / ".hydra/config.yaml", "a") as config:
        config.write(f"ckpt_path: {parent}/checkpoints/best.ckpt\n")
    names = [f"scene_{i}" for i in range(8)]
    rows = [f"{i},{name}.png,{1 + i % 2},0.5\n" for i, name in enumerate(names)]
    (gated / "exits.csv").write_text("image_id,name,exit,gflops\n" + "".join(rows))
    write_pictures(gated, *names)
    write_pictures(parent, *names)
    return folder


def test_which_files_and_where_they_are(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The page's path is all that is printed."""
    assert run(monkeypatch, runs, "--out", tmp_path / "out") == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == FILES
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "out/index.html")
    assert said.err == ""


def test_without_classes_there_is_no_file_of_them(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one left of an earlier report."""
    for folder in ("model", "gate"):
        assert run(monkeypatch, runs / folder, "--out", tmp_path / "out") == 0
        assert (tmp_path / "out/classes.csv").exists() == (folder == "model")


@pytest.mark.slow
def test_the_page_needs_nothing_else(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No address in it, and every picture is inside: those that left first and last, then examples of the parent."""
    run(monkeypatch, runs, "--out", tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    assert "http" not in page
    assert "<script" not in page
    assert all(re.match("#|data:", link) for link in re.findall(r'(?:src|href)="([^"]*)"', page))
    sources = re.findall(r'<img src="([^"]{20})', page)
    assert len(sources) == 6 + 2
    assert all(source.startswith("data:image/jpeg;") for source in sources)
    targets = set(re.findall(r'id="([^"]*)"', page))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= targets


def test_images_with_equal_exits_keep_their_order(runs: Path) -> None:
    """The shallowest first, then the deepest; a report is the same each time."""
    captions = early_and_late(runs / "gated").values()
    assert [caption.split(": ")[1] for caption in captions] == [f"scene_{i}" for i in (0, 2, 4, 3, 5, 7)]


def test_numbers_are_those_of_the_files(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All digits in the table, and in the page rounded; with command, revision and machine."""
    run(monkeypatch, runs, "--out", tmp_path / "out")
    with open(tmp_path / "out/table.csv", newline="") as file:
        rows = {(row["source"], row["exit"]): row for row in csv.DictReader(file) if row["row"] == "run"}
    for source, key in (("model/scores.json", "exits"), ("gate/gate.json", "outcomes")):
        for who, scores in json.loads((runs / source).read_text())[key].items():
            row = rows[f"{runs / source}", who if key == "outcomes" else f"exit{who}"]
            assert {name: row[name] for name in scores} == {name: repr(value) for name, value in scores.items()}
    with open(tmp_path / "out/classes.csv", newline="") as file:
        by_class = {(row["exit"], row["class"]): row for row in csv.DictReader(file)}
    for who, classes in json.loads((runs / "model/scores.json").read_text())["classes"].items():
        for name, scores in classes.items():
            row = by_class.pop((who, name))
            assert row["source"] == str(runs / "model/scores.json")
            assert {score: row[score] for score in scores} == {score: repr(value) for score, value in scores.items()}
    assert by_class == {}
    page = (tmp_path / "out/index.html").read_text()
    for printed in ("70.25", "0.7123", "0.7123456", "1: 75 %", "81.99", "-0.33", "abcdef123456+", "CPU, 2 cores"):
        assert printed in page
    assert "python -m src.train +experiment=model seed=0 &#x27;exits=[1,2]&#x27;" in page


def test_a_bad_run_is_said_in_a_line_and_others_are_reported(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """On stderr and on the page."""
    bad = write_model(runs / "bad")
    (bad / "scores.json").write_text('{"step": 7, "exits": {"1": {"pq": 7')
    assert run(monkeypatch, runs, "--out", tmp_path / "out") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert str(bad) in line
    assert "cut short" in line
    page = (tmp_path / "out/index.html").read_text()
    assert str(bad) in page
    assert "70.25" in page


@pytest.mark.parametrize(
    ("place", "why"), [("missing", "no such folder"), ("empty", "no run in it"), ("file", "a file")]
)
def test_nothing_to_report(
    place: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Status 2, and nothing is written."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert run(monkeypatch, tmp_path / place, "--out", tmp_path / "out") == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_runs_given(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """It is said what is missing."""
    assert run(monkeypatch) == 2
    assert "RUNS" in capsys.readouterr().err


def write_judged(folder: Path) -> Path:
    """What the judge writes, made up."""
    verdict = {"answer": "take exit 2", "why": "a <gate> earns nothing", "images_needed": None}
    figures = {"lead": [0.01234, -0.02, 0.03], "efficacy": [0.51, 0.4, 0.6]}
    one = {"name": "gate <b>", "gate": "g", "beta": 0.01, "num_images": 99, "verdict": verdict, "figures": figures}
    folder.mkdir()
    Image.new("RGB", (100, 50), "red").save(folder / "judge.png")
    content = {"table": "tables/x", "split": "val", "remarks": ["its holdout only"], "block": 20, "answers": [one]}
    return write_json(folder / "judge.json", content)


def test_judgements_are_a_section(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Verdict, reason, figures with intervals and the picture; a damaged one is left out, in a line."""
    write_judged(runs / "judged")
    (runs / "bad").mkdir()
    (runs / "bad/judge.json").write_text('{"answers": [{}]}')
    assert run(monkeypatch, runs, runs / "judged", "--out", tmp_path / "out") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert str(runs / "bad/judge.json") in line
    page = (tmp_path / "out/index.html").read_text()
    figures = ("0.0123 [-0.0200, 0.0300]", "0.51 [0.40, 0.60]")
    for shown in ("take exit 2", "a &lt;gate&gt; earns", *figures, "holdout", "in blocks of 20"):
        assert page.count(shown) == 1
    assert 'alt="quality against GFLOPs"' in page
    assert run(monkeypatch, runs / "judged", "--out", tmp_path / "alone") == 0
    assert "take exit 2" in (tmp_path / "alone/index.html").read_text()


def test_a_broken_picture_is_left_out(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """And said to be."""
    broken = runs / "model/pictures/00_scene_0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    run(monkeypatch, runs, "--out", tmp_path / "out")
    assert f"<code>{broken}</code>" in (tmp_path / "out/index.html").read_text()
    assert str(broken) in capsys.readouterr().err


def test_what_a_report_does_without(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged settings, lists of exits and counts cost their part of the page, not the page."""
    write_gate(runs / "odd", taken={"x": 1}, labels=[1], made_by="me")
    (runs / "odd/.hydra/config.yaml").write_text("a: [")
    (runs / "gated/exits.csv").write_text("image_id,na")
    assert run(monkeypatch, runs, "--out", tmp_path / "out") == 0
    assert "not recorded" in (tmp_path / "out/index.html").read_text()


def test_names_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a folder is called."""
    write_json(write_model(tmp_path / "<b>$x" / "run") / "scores.json", {"exits": {"1": {"pq": 1, "total_gflops": 1}}})
    assert run(monkeypatch, tmp_path, "--out", tmp_path / "out") == 0
    page = (tmp_path / "out/index.html").read_text()
    assert "&lt;b&gt;$x/run" in page
    assert "<b>" not in page


def test_a_run_named_twice_counts_once(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself and by a folder above it."""
    run(monkeypatch, runs, runs / "model", "--out", tmp_path / "out")
    assert "3 runs, read" in (tmp_path / "out/index.html").read_text()
