"""The judge as one asks it: answers, files, and what is refused."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.exit_table.table import LabelledBatch, TableInfo, write_shard
from src.judge import main
from src.judging.session import Question, answer
from tests.helpers import error_line
from tests.tables import EXITS, write_gate, write_second, write_table

Capture = pytest.CaptureFixture[str]
RESAMPLES = 100


class Files:
    """A table, one of other images, a second measurement of these, and gates trained from the first."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.table = write_table(folder / "table", num_images=400)
        self.others = write_second(folder / "others", self.table, parent="f" * 64, split="val")
        self.again = write_second(folder / "again", self.others, split="val")
        self.gate = write_gate(folder / "gate", self.table)
        self.gate_of_qualities = write_gate(folder / "gate_of_qualities", self.table, target="quality")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("judge"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command."""

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["judge", *map(str, arguments), "--resamples", str(RESAMPLES)])
        main()

    return run


def test_from_files_to_verdicts(files: Files, run: Callable[..., None], tmp_path: Path, capsys: Capture) -> None:
    """Two gates with a second measurement: printed, as figures, as a page and as a picture."""
    run(files.others, files.gate, files.gate_of_qualities / "checkpoints/best.ckpt", "--again", files.again,
        "--out", tmp_path)  # fmt: skip
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "gate (beta 0.02): gate it: " in shown.out
    assert "gate_of_qualities (beta 0.02): " in shown.out
    content = json.loads((tmp_path / "judge.json").read_text())
    first, second = content["answers"]
    assert (first["name"], first["beta"], first["num_images"]) == ("gate", 0.02, 393)
    assert first["verdict"]["answer"] == "gate it"
    assert set(first["policies"]) == {*(f"exit{depth}" for depth in EXITS), "gate", "random", "oracle", "ceiling"}
    for low_to_high in ("lead", "lead_over_chance", "lead_over_hull", "headroom", "cross_lead", "efficacy"):
        value, low, high = first["figures"][low_to_high]
        assert low < value < high
    assert first["figures"]["auroc"][0] > 0.7
    assert sum(first["taken"].values()) == pytest.approx(1)
    page = (tmp_path / "judge.md").read_text()
    assert "**gate (beta 0.02): gate it.**" in page
    assert (tmp_path / "judge.png").read_bytes().startswith(b"\x89PNG")
    assert second["gate"] == str(files.gate_of_qualities / "checkpoints/best.ckpt")


def test_answers_repeat(files: Files) -> None:
    """A seed gives the same figures, another seed other intervals of the same values."""
    asked = Question(files.others, [files.gate], resamples=RESAMPLES)
    one, two, other = (answer(asked._replace(seed=seed)).answers[0].judgement for seed in (0, 0, 1))
    assert one == two
    assert one.figures["lead"].value == other.figures["lead"].value
    assert one.figures["lead"] != other.figures["lead"]


def test_frames_of_a_video(files: Files, run: Callable[..., None], tmp_path: Path, capsys: Capture) -> None:
    """Images that repeat are remarked upon, unless blocks of them are resampled; intervals are then wider."""
    video = write_table(tmp_path / "video", num_images=40, repeats=10, num_empty=0)
    run(video, "--beta", "0.02", "--out", tmp_path / "one")
    assert "neighbouring images profit from the same exits (correlation 0.8" in capsys.readouterr().err
    run(video, "--beta", "0.02", "--block", 10, "--out", tmp_path / "ten")
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "95 % intervals over blocks of 10 images" in shown.out
    contents = [json.loads((tmp_path / name / "judge.json").read_text()) for name in ("one", "ten")]
    assert [content["block"] for content in contents] == [1, 10]
    (_, low, high), (_, low_ten, high_ten) = (content["answers"][0]["figures"]["oracle_lead"] for content in contents)
    assert high_ten - low_ten > 2 * (high - low)
    run(files.others, "--beta", "0.02")
    assert capsys.readouterr().err == ""


def test_a_table_alone(files: Files, run: Callable[..., None], capsys: Capture) -> None:
    """What a gate could earn at each beta; without a second measurement the ceiling is unknown."""
    run(files.others, "--beta", "0", "0.02")
    shown = " ".join(capsys.readouterr().out.split())
    assert "without --again the noise ceiling is unknown" in shown
    assert "table (beta 0.02): a gate can earn up to" in shown
    assert "an upper bound" in shown


def test_a_gate_of_qualities_takes_any_beta(files: Files) -> None:
    """A larger one sends images to shallower exits; the other gate keeps its own."""
    asked = Question(files.others, [files.gate, files.gate_of_qualities], [0.0, 2.0], resamples=RESAMPLES)
    found = answer(asked).answers
    assert [one.name for one in found] == ["gate", "gate_of_qualities, beta 0", "gate_of_qualities, beta 2"]
    assert [one.judgement.beta for one in found] == [0.02, 0.0, 2.0]
    depths = [sum(depth * share for depth, share in one.judgement.taken.items()) for one in found]
    assert depths[2] < depths[1] == depths[0]


@pytest.mark.parametrize("target", ["exit", "quality"])
def test_a_gate_of_another_quality_is_judged_by_the_tables(target: str, files: Files, tmp_path: Path) -> None:
    """At any beta in units of the table's quality; it keeps the choices that it was trained to make."""
    loss = write_table(tmp_path / "loss", 400, settings={"task.quality": "loss"})
    gate = write_gate(tmp_path / "gate", loss, target=target)
    same = {"exit": files.gate, "quality": files.gate_of_qualities}[target]
    (expected,) = answer(Question(files.others, [same], resamples=RESAMPLES)).answers
    found = answer(Question(files.others, [gate], [0.02, 0.5], resamples=RESAMPLES)).answers
    assert [one.judgement.beta for one in found] == [0.02, 0.5]
    assert found[0].judgement == expected.judgement
    assert found[1].judgement.taken == expected.judgement.taken


def test_the_table_of_the_training_leaves_its_holdout(files: Files) -> None:
    """That is said, and the images are the ones that the training held out."""
    found = answer(Question(files.table, [files.gate], resamples=RESAMPLES))
    assert found.answers[0].judgement.num_images == 39
    (remark,) = found.remarks
    assert f"it was trained on 354 images of {files.table}; only its holdout counts" in remark


def test_a_gate_of_some_exits(files: Files, tmp_path: Path) -> None:
    """It is compared with all exits of the table."""
    gate = write_gate(tmp_path / "gate", files.table, exits=[3, 6])
    judged = answer(Question(files.others, [gate], resamples=RESAMPLES)).answers[0].judgement
    assert [depth for depth, share in judged.taken.items() if share] == [3, 6]
    assert "exit2" in judged.policies


def change(gate: Path, folder: Path, **table: Any) -> Path:
    """A copy of a gate with other facts about its training; None removes one."""
    content = torch.load(gate / "checkpoints/best.ckpt", weights_only=True)
    facts = content["hyper_parameters"]["table"] | table
    content["hyper_parameters"]["table"] = {name: value for name, value in facts.items() if value is not None}
    folder.mkdir()
    torch.save(content, folder / "best.ckpt")
    return folder


def test_an_old_gate_is_judged_with_a_warning(files: Files, tmp_path: Path) -> None:
    """One that does not say which images it was trained on; but not on its own table."""
    old = change(files.gate, tmp_path / "old", train_ids=None)
    found = answer(Question(files.others, [old], resamples=RESAMPLES))
    assert found.answers[0].judgement.num_images == 393
    assert "it does not say which images it was trained on" in found.remarks[0]
    with pytest.raises(ValueError, match="does not say on which images; expected another table"):
        answer(Question(files.table, [old], resamples=RESAMPLES))


def test_images_of_the_training_are_refused(files: Files, tmp_path: Path) -> None:
    """By id, if they are some of a table's; the same numbers in another split are other images."""
    some = write_second(tmp_path / "some", files.table, parent="f" * 64, keep=slice(0, 100))
    with pytest.raises(ValueError, match=r"trained on image \d+ \(\d+.jpg\) of .*some, one of \d+ such images"):
        answer(Question(some, [files.gate]))


def single_exit(folder: Path) -> Path:
    info = TableInfo("f" * 64, "made up", [6], "panoptic", {"mean32": 2}, "val", 40, 40, {})
    numbers = torch.rand(40, 1)
    ids = list(range(40))
    batch = LabelledBatch(ids, list(map(str, ids)), numbers, numbers + 1, {"mean32": numbers.expand(-1, 2)})
    write_shard(folder, 0, [batch], info)
    return folder


def other_inputs(folder: Path) -> Path:
    return write_table(folder, num_images=100, inputs=["std32"])


def exits_of_gate(folder: Path, files: Files) -> Path:
    """A gate with exits that no table here has."""
    gate = torch.load(files.gate / "checkpoints/best.ckpt", weights_only=True)
    gate["hyper_parameters"]["gate"]["exits"] = [2, 3, 4, 5, 9]
    folder.mkdir()
    torch.save(gate, folder / "best.ckpt")
    return folder


REFUSED: dict[str, tuple[Callable[[Files, Path], list[object]], str]] = {
    "no table": (lambda files, tmp: [tmp / "none"], "no part-*.parquet there"),
    "no quality": (lambda files, tmp: [write_table(tmp / "t", 40, num_empty=40)], "nothing to score in any of its 40"),
    "one exit": (lambda files, tmp: [single_exit(tmp / "t")], "the single exit 6 leaves nothing to choose"),
    "few images": (
        lambda files, tmp: [write_table(tmp / "t", 36)],
        "29 images with a quality to judge on, expected 30",
    ),
    "no gate": (lambda files, tmp: [files.others, tmp / "none.ckpt"], "none.ckpt: no such file"),
    "no gate in folder": (lambda files, tmp: [files.others, tmp], "no checkpoints/best.ckpt or best.ckpt there"),
    "no checkpoint": (lambda files, tmp: [files.others, files.others / "part-00000.parquet"], "not a checkpoint"),
    "other parent": (lambda files, tmp: [files.again, files.gate], "it is of the parent ffffffffffff"),
    "other exits": (
        lambda files, tmp: [files.others, exits_of_gate(tmp / "g", files)],
        "it has the exits [2, 3, 4, 5, 9]",
    ),
    "other inputs": (lambda files, tmp: [other_inputs(tmp / "t"), files.gate], "it sees mean32, and"),
    "other width": (lambda files, tmp: [write_table(tmp / "t", 100, dim=4), files.gate], "it sees 8 channels, and"),
    "other quality": (
        lambda files, tmp: [write_table(tmp / "t", 100, settings={"task.quality": "loss"}), files.gate],
        "expected --beta B, what a layer must bring in units of the loss",
    ),
    "other quality again": (
        lambda files, tmp: [
            files.others,
            "--again",
            write_second(tmp / "t", files.others, settings={"task.quality": "loss"}),
        ],
        "its quality is the loss of an image, and",
    ),
    "beta of a fixed gate": (lambda files, tmp: [files.others, files.gate, "--beta", 0.1], "--beta 0.1: fixed by"),
    "negative beta": (lambda files, tmp: [files.others, "--beta", "nan"], "nan: expected a number, 0 or more"),
    "long blocks": (
        lambda files, tmp: [files.others, "--block", 79],
        "--block 79: 393 images to judge on are fewer than 5 such blocks, expected 78 or less",
    ),
    "no worth": (lambda files, tmp: [files.others, "--worth", 0], "0: expected a number, above 0"),
    "other images again": (
        lambda files, tmp: [
            files.others,
            "--again",
            write_second(tmp / "t", files.others, keep=slice(0, 100)),
        ],
        "it has 100 of the 400 image ids",
    ),
    "the same again": (lambda files, tmp: [files.others, "--again", files.others], "its qualities are those of"),
    "other exits again": (lambda files, tmp: [files.others, "--again", single_exit(tmp / "t")], "it has the exits [6]"),
    "others without quality": (
        lambda files, tmp: [files.others, "--again", write_table(tmp / "t", 400, num_empty=9)],
        "have a quality in one table only",
    ),
    "no folder to write": (
        lambda files, tmp: [files.others, "--out", files.others / "part-00000.parquet/x"],
        "--out ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_is_one_line(
    name: str, files: Files, run: Callable[..., None], tmp_path: Path, capsys: Capture
) -> None:
    """With status 2, naming what is wrong."""
    arguments, said = REFUSED[name]
    if name in ("negative beta", "no worth"):  # argparse's own lines
        with pytest.raises(SystemExit) as stop:
            run(*arguments(files, tmp_path))
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
    else:
        assert said in error_line(capsys, lambda: run(*arguments(files, tmp_path)))


def test_help_has_examples(run: Callable[..., None], capsys: Capture) -> None:
    """Of the usual questions."""
    with pytest.raises(SystemExit):
        run("--help")
    assert "python -m src.judge TABLE GATE --again TABLE2 --out judged" in capsys.readouterr().out
