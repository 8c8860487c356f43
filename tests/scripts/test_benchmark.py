"""The benchmark: its clock, its ratios, and a tiny run from the command line to the report. No time is asserted."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scripts import benchmark
from scripts.benchmarking import inference
from scripts.benchmarking.models import found, settings
from scripts.benchmarking.plan import OURS, THEIRS, Plan, Row, quartiles
from scripts.benchmarking.report import Section
from src.config.build import sketch
from src.config.command_line import configure
from src.metrics.cost import survey
from src.system.stopwatch import Stopwatch, take_turns

SMALL = ["dim=32", "num_queries=10", "model.decoder.num_layers=2", "model.pixel_decoder.encoder.dim_feedforward=64"]
SIZE = (64, 96)


class Clock:
    """Time that passes only when something sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def stopwatch(self) -> Stopwatch:
        return Stopwatch(lambda: self.now, lambda start, end: end - start)


def test_parts_add_up_to_the_whole() -> None:
    """What an inner part takes is not counted for the outer one, and nothing outside of all parts is counted."""
    clock = Clock()
    watch = clock.stopwatch()
    inner = SimpleNamespace(forward=lambda: clock.sleep(4))

    def forward() -> str:
        clock.sleep(2)
        inner.forward()
        clock.sleep(3)
        return "output"

    outer = SimpleNamespace(forward=forward)
    watch.watch(inner, "forward", "encoder")
    watch.watch(outer, "forward", "pixel decoder")
    outer.forward()  # not timed: no part is running
    with watch.part("whole"):
        clock.sleep(1)
        assert outer.forward() == "output"
    clock.sleep(100)
    with watch.part("after"):
        clock.sleep(7)
    assert watch.read() == {"whole": 1, "pixel decoder": 5, "encoder": 4, "after": 7}
    assert watch.read() == {}


def test_every_call_has_a_turn_in_every_round() -> None:
    """The rounds to warm up are not kept, and the calls of a round follow one another."""
    clock, turns = Clock(), []
    watch = clock.stopwatch()

    def call(name: str, seconds: float) -> None:
        turns.append(name)
        with watch.part("part"):
            clock.sleep(seconds)

    calls = {"a": lambda: call("a", 1), "b": lambda: call("b", 2)}
    assert take_turns(calls, watch, rounds=3, warm_up=2, title="") == {"a": {"part": [1] * 3}, "b": {"part": [2] * 3}}
    assert len(turns) == 2 * 5
    assert all({*turns[place : place + 2]} == {"a", "b"} for place in range(0, 10, 2))


def test_ratios_are_taken_within_rounds() -> None:
    """A slow machine in one round changes no ratio, whatever the number of images of a call."""
    seconds = {"encoder": [1.0, 10, 1], "rest of pixel decoder": [1.0, 10, 1], "decoder": [2.0, 20, 2]}
    one = Row("one", 1, "one", {"encoder": 4.0, "rest of pixel decoder": 1.0, "decoder": 3.0}, seconds)
    half = Row("half", 2, "one", {"encoder": 1.0, "rest of pixel decoder": 1.0, "decoder": 3.0}, seconds)
    assert half.time_ratio(one) == (0.5, 0.5, 0.5)
    assert half.cost_ratio(one) == 5 / 8
    assert half.cost_ratio(one, ["encoder"]) == 1 / 4
    assert quartiles([3.0]) == (3, 3, 3)
    assert quartiles([1, 2, 3, 4, 5]) == (2, 3, 4)
    (line,) = [line for line in Section("title", [one, half]).ratios().splitlines() if "half" in line]
    assert line == "| half | one | 0.500 | 0.625 | 0.80 | 0.500 | 0.250 | 2.00 | 0.500 | 0.400 | 1.25 |"


def test_post_processing_has_something_to_do() -> None:
    """A fifth of the queries is sure of a class, the others of none."""
    scores, labels = found(2, 100, 133, torch.device("cpu")).softmax(-1).max(-1)
    assert ((labels < 133).sum(1) == 20).all()
    assert (scores > 0.8).all()


def plan(rounds: int = 1) -> Plan:
    return Plan(settings("resnet50", SMALL), "camvid", torch.device("cpu"), "32", False, 1, rounds)


@pytest.mark.slow
def test_outputs_multiply_adds_and_exits() -> None:
    """Ours equals `transformers`; multiply-adds are those of `src.cost`; the gate's images leave at different exits."""
    pytest.importorskip("transformers")
    watch, names = Stopwatch.of(torch.device("cpu")), [THEIRS, OURS, "proscale111", "exit2", "gate"]
    models = inference.Models(plan(), names, watch)
    rows, equality = inference.measure(plan(), models, SIZE, watch)
    assert equality is not None
    assert equality.holds
    assert equality.class_error < 1e-4
    by_name = {row.name: row for row in rows}
    assert list(by_name) == [THEIRS, OURS, "proscale111", "exit2", inference.UNGATED, "gate"]
    assert by_name[THEIRS].cost() == by_name[OURS].cost()
    assert len(set(by_name["gate"].exits or [])) > 1

    def counted(*overrides: str) -> dict[int, float]:
        model = sketch(configure([*plan().settings, *overrides]), num_classes=11).model
        costs = survey(model, [(SIZE, SIZE)], range(1, model.pixel_decoder.encoder.depth + 1))
        return {depth: cost.total - cost.postprocessing for depth, cost in costs.items()}

    exits = counted("schedule=[0,0,6]")
    proscale = counted("schedule=[1,1,1]", "model/pixel_embedding=light", "model/recalibration=linear")
    assert by_name["exit2"].cost_ratio(by_name[OURS]) == pytest.approx(exits[2] / exits[6])
    assert by_name["proscale111"].cost_ratio(by_name[OURS]) == pytest.approx(proscale[3] / exits[6])

    with torch.no_grad():  # a difference is seen
        models.ours.model.decoder.mask_embed[-1].weight.neg_()
    broken = inference.compare(models.contestants(SIZE))
    assert broken is not None
    assert not broken.holds


@pytest.mark.slow
def test_a_tiny_benchmark_from_the_command_to_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All three parts: every contestant has its rows in the tables, and its raw times by part in the JSON file."""
    pytest.importorskip("transformers")
    options = ["--sizes", "64x96", "--side", "64", "--rounds", "2", "--backbone", "resnet50", "--device", "cpu"]
    points = "task.criterion.num_points=64"
    models = ["--models", "transformers", "mask2former", "all_exits"]
    parts = ["inference", "training", "labelling"]
    benchmark.main([*parts, *SMALL, points, *options, *models, "--no-memory", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert (tmp_path / "benchmark.md").read_text() == said
    assert "The outputs are those of `transformers`" in said
    assert (tmp_path / "benchmark.png").stat().st_size > 1000
    raw = json.loads((tmp_path / "benchmark.json").read_text())
    assert [row["name"] for row in raw["inference"][0]["rows"]] == [THEIRS, OURS]
    assert [row["name"] for row in raw["training"]] == [THEIRS, OURS, "all_exits"]
    parts_of_step = {"backbone", "encoder", "rest of pixel decoder", "decoder", "matching", "losses", "backward"}
    for row in raw["training"]:
        assert row["seconds"].keys() == parts_of_step | {"optimiser", "other"}
    for row in raw["inference"][0]["rows"]:
        assert {len(times) for times in row["seconds"].values()} == {2}
    assert len(raw["labelling"]) == 2
    assert raw["about"]["torch"] == torch.__version__


@pytest.mark.slow
def test_memory_is_that_of_another_process(tmp_path: Path) -> None:
    """The size before the first pass is at most the peak."""
    options = ["--sizes", "64x96", "--rounds", "1", "--models", "exit1", "--backbone", "resnet50", "--device", "cpu"]
    benchmark.main(["inference", *SMALL, *options, "--out", str(tmp_path)])
    (one,) = json.loads((tmp_path / "benchmark.json").read_text())["memory"]["inference"]
    assert one["name"] == "exit1"
    assert 0 < one["idle"] <= one["peak"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["speed"], "speed: no such part"),
        (["--sizes", "512"], "512: expected HEIGHTxWIDTH"),
        (["--sizes", "8x512"], "of 32 pixels or more"),
        (["--side", "100"], "100: expected a multiple of 32"),
        (["--rounds", "0"], "0: expected a whole number"),
        (["--backbone", "vgg"], "invalid choice: 'vgg'"),
        (["--models", "exit9"], "--models exit9: no such contestant"),
        (["training", "--models", "exit2"], "--models exit2: no such contestant, expected some of transformers"),
        (["dim=33"], "dim=33"),
        (["dimm=32"], "dimm"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit status 2, and nothing is written."""
    with pytest.raises(SystemExit) as end:
        benchmark.main([*arguments, "--no-memory", "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_settings_and_parts_stand_anywhere() -> None:
    """Except behind an option that takes several words."""
    args = benchmark.parse(["dim=32", "--compile", "training", "--device", "cpu", "~logger", "--sizes", "64x96"])
    assert (args.parts, args.overrides, args.sizes) == (["training"], ["dim=32", "~logger"], [(64, 96)])


def test_without_transformers_its_row_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line says how to install it."""
    monkeypatch.setattr("scripts.benchmarking.models.importlib.util.find_spec", lambda name: None)
    args = benchmark.parse(["inference", "--device", "cpu"])
    assert benchmark.contestants(args, plan())["inference"][:2] == [OURS, "proscale111"]
    assert "pip install '.[test]'" in capsys.readouterr().err
