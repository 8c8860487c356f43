"""Which runs are one point, and what it is worth."""

import os
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from src.records.flatten import flatten
from src.records.latency_table import LatencyTable, Row, update
from src.reporting.points import Panel, Point, panels, superseded
from src.reporting.published import PUBLISHED, published_on
from src.reporting.run_settings import Settings, labels
from src.reporting.runs import find
from tests.reporting.made_up import write_gate, write_json, write_model


def panels_in(folder: Path) -> list[Panel]:
    return panels(find([folder])[0])


def point_of(panel: Panel, policy: str) -> Point:
    (point,) = (point for point in panel.points if point.policy == policy)
    return point


def test_seeds_are_averaged(tmp_path: Path) -> None:
    """Mean and deviation of a sample over runs that differ in their seed only."""
    scores = [70.1, 71.3, 69.7]
    for seed, pq in enumerate(scores):
        write_model(tmp_path / f"run{seed}", pq, seed)
    (panel,) = panels_in(tmp_path)
    point = point_of(panel, "exit1")
    assert (point.mean("pq"), point.deviation("pq")) == (statistics.mean(scores), statistics.stdev(scores))
    assert len(point.runs) == 3


def test_gates_of_seeds_of_a_parent_are_averaged(tmp_path: Path) -> None:
    """Their tables lie where the path says the seed."""
    for seed in (0, 1):
        write_gate(tmp_path / f"run{seed}", 0.7 + 0.01 * seed, seed)
    (panel,) = panels_in(tmp_path)
    assert point_of(panel, "gate").values("quality") == [0.7, 0.71]
    assert point_of(panel, "oracle").deviation("quality") is not None


def test_other_settings_are_other_points(tmp_path: Path) -> None:
    """Betas make a line; the exits that they share are there once."""
    for beta in (0.02, 0.01):
        write_gate(tmp_path / f"{beta}", 0.7, beta=beta)
    (panel,) = panels_in(tmp_path)
    (line,) = (points for (_, kind), points in panel.series.items() if kind == "gate")
    assert sorted(point.beta or 0 for point in line) == [0.01, 0.02]
    assert len(point_of(panel, "exit1").runs) == 1


def test_gates_of_a_beta_each_are_one_line(tmp_path: Path) -> None:
    """Scored in folders that the beta names, beside the exits of their parent."""
    write_model(tmp_path / "parent")
    for beta in (0.001, 0.01):
        gate = {"pq": 70.0, "total_gflops": 0.8, "depth": 1.25, "beta": 0.0}
        folder = write_model(tmp_path / f"scores_beta={beta}", exits={}, gate=gate)
        with open(folder / ".hydra/config.yaml", "a") as file:
            file.write(f"beta: {beta}\ngate: /x/eco_gate/gate_beta={beta}/best.ckpt\nckpt_path: /x/parent/best.ckpt\n")
    (panel,) = panels_in(tmp_path)
    lines = {kind: (label, [point.beta for point in points]) for (label, kind), points in panel.series.items()}
    assert lines == {"exit": ("model", [None, None]), "gate": ("gate eco_gate/gate_beta=*", [0.001, 0.01])}


def test_exits_and_gates_are_compared_at_the_images_own_sizes(tmp_path: Path) -> None:
    """Where all that is scored has such costs; else at what there is."""
    exits = {"1": {"pq": 60.0, "total_gflops": 5.0, "image_gflops": 4.0}}
    gate = {"pq": 61.0, "total_gflops": 5.5, "image_gflops": 4.5, "beta": 0.0}
    write_model(tmp_path / "new", exits=exits, gate=gate)
    write_model(tmp_path / "old", exits={"1": {"pq": 60.0, "total_gflops": 5.0}})
    new, old = panels_in(tmp_path)
    assert [point.at for point in new.points] == [(4.0, 60.0), (4.5, 61.0)]
    assert [point.at for point in old.points] == [(5.0, 60.0)]
    assert "costs at 96x96" in old.title
    assert "costs at" not in new.title


def test_variants_are_called_by_their_names(configure: Callable[..., DictConfig]) -> None:
    """Not by the settings that follow from them; another setting of a variant is told, and no variant by the name."""

    def settings(*overrides: str) -> Settings:
        cfg = configure("+experiment=mask2former_shapes", *overrides)
        return Settings(flatten(OmegaConf.to_container(cfg)), list(overrides), "", "")

    runs = [["variant=lite"], ["variant=proscale"], ["variant=fpn"], ["variant=hybrid"], ["seed=1"]]
    assert list(labels({str(run): settings(*run) for run in runs}).values()) == [
        *("variant lite", "variant proscale", "variant fpn", "variant hybrid", "mask2former_shapes")
    ]
    blocks = "model.pixel_decoder.encoder.expand.blocks=2"
    runs = [["variant=lite"], ["variant=lite", blocks], ["variant=fpn"]]
    found = list(labels({str(run): settings(*run) for run in runs}).values())
    assert found == ["variant lite", "variant lite, blocks 2", "variant fpn"]


def test_runs_without_settings_stay_apart(tmp_path: Path) -> None:
    """Nobody knows what they differ in."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "scores.json", {"exits": {"1": {"pq": 1.0, "total_gflops": 1.0}}})
    (panel,) = panels_in(tmp_path)
    assert [len(point.runs) for point in panel.points] == [1, 1]


def test_of_a_seed_twice_the_newer_counts(tmp_path: Path) -> None:
    """And the other is said to be left out."""
    old = write_model(tmp_path / "old", 60.0)
    os.utime(old / "scores.json", (1, 1))
    write_model(tmp_path / "new", 61.0)
    runs, _ = find([tmp_path])
    found = panels(runs)
    assert point_of(found[0], "exit1").values("pq") == [61.0]
    assert [run.folder for run in superseded(runs, found)] == [old]


def test_the_front_has_what_nothing_cheaper_beats(tmp_path: Path) -> None:
    """Of exits and gates; what knows the truth is not on it."""
    write_gate(tmp_path / "run")
    (panel,) = panels_in(tmp_path)
    assert [point.policy for point in panel.front()] == ["exit1", "gate", "exit2"]


@pytest.mark.parametrize(("data", "some"), [("shapes", False), ("coco", True), ("mine", False)])
def test_published_points_stand_beside_their_own_data_only(data: str, some: bool, tmp_path: Path) -> None:
    """Made scenes and other people's files have none."""
    write_model(tmp_path / "run", data=data)
    (panel,) = panels_in(tmp_path)
    assert bool(published_on(panel.data_set, panel.quality)) == some


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("camvid_test", "CamVid test, semantic"),
        ("camvid", "CamVid val, semantic"),
        ("ade20k_semantic", "ADE20K val, semantic"),
        ("ade20k_panoptic", "ADE20K val, panoptic"),
        ("ade20k_instances", "ADE20K val, instance"),
        ("cityscapes_semantic", "Cityscapes val, semantic"),
        ("cityscapes_instances", "Cityscapes val, instance"),
        ("cityscapes_panoptic", "Cityscapes val, panoptic"),
        ("coco_instances", "COCO val2017, instance"),
        ("custom_semantic", "mine val, semantic"),
        ("custom_panoptic", "mine val, panoptic"),
    ],
)
def test_data_sets_are_called_by_their_names(data: str, expected: str, configure: Callable[..., DictConfig]) -> None:
    """With the split and what is learnt, whatever layout they come in; data of one's own by their folder."""
    own = ["data.root=data/mine"] if data.startswith("custom") else []
    values = flatten(OmegaConf.to_container(configure(f"data={data}", *own)))
    assert Settings(values, [], "", "").data_set() == expected
    scored = {"panoptic": "pq", "instance": "ap", "semantic": "miou"}[values["segmentation"]]
    assert bool(published_on(expected, scored)) == (not expected.startswith(("CamVid", "mine")))


def test_published_figures_are_those_of_the_documentation() -> None:
    """To the digit, each in docs/method.md."""
    words = (Path(__file__).parents[2] / "docs/method.md").read_text().replace("/", " ").split()
    assert not [one for one in PUBLISHED if one.score not in words or (one.gflops and one.gflops not in words)]


def test_times_of_a_table_are_drawn_beside_those_of_the_run(tmp_path: Path) -> None:
    """A panel for each machine, and none twice; an exit takes what the table says for its cost."""
    exits = {str(depth): {"pq": 70.0 + depth, "total_gflops": depth, "latency_ms": 3.0 * depth} for depth in (1, 2)}
    run = write_model(tmp_path / "run", exits=exits, made_by={"device": "CPU, 2 cores"})
    rows = [Row((96, 96), depth, 1.0, 10.0 * depth, 9.0, 11.0, 3) for depth in (1, 2)]
    update(run / "latency.json", LatencyTable("a GPU", "torch 2.9", "float32", "2026-11-27", rows))
    (panel,) = panels_in(tmp_path)
    timed = panel.timed()
    assert list(timed) == ["CPU, 2 cores", "a GPU"]
    at = {name: [point.at for point in one.points] for name, one in timed.items()}
    assert at == {"CPU, 2 cores": [(3, 71), (6, 72)], "a GPU": [(10, 71), (40, 72)]}
    assert [point.paces() for point in timed["a GPU"].points] == [[0.25], [1.0]]


def test_times_are_those_of_the_precision_that_was_scored(tmp_path: Path) -> None:
    """A run in bfloat16 has the times of bfloat16, though those of float32 are newer; without any it has none."""
    for name, precision in (("float", "32-true"), ("half", "bf16-mixed"), ("other", "16-mixed")):
        run = write_model(tmp_path / name)
        with (run / ".hydra/config.yaml").open("a") as config:
            config.write(f"trainer:\n  precision: {precision}\n")
        for kind, ms, day in (("bfloat16", 5.0, "2026-11-26"), ("float32", 9.0, "2026-11-27")):
            rows = [Row((96, 96), depth, 1.0, ms, ms, ms, 3) for depth in (1, 2)]
            update(run / "latency.json", LatencyTable("a GPU", "torch 2.9", kind, day, rows))
    runs, _ = find([tmp_path])
    times = {run.folder.name: run.times.get("a GPU", {}).get("exit2") for run in runs}
    assert times == {"float": pytest.approx(9.0), "half": pytest.approx(5.0), "other": None}
