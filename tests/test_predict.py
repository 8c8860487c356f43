"""`python -m src.predict`, and the class behind it."""

import csv
import errno
import json
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from src.config.build import build_run
from src.config.command_line import configure, run
from src.config.saved_settings import saved_overrides
from src.data.shapes import Shapes
from src.metrics.cost import count
from src.predict import gathered, predict
from src.predictor import Predictor
from src.records.latency_table import LatencyTable, Row, update
from src.system.machine import machine_of
from tests.helpers import ROOT, SMALL_MODEL, TINY_SHAPES, error_line
from tests.weights import published
from tests.weights.published import weights

pytestmark = pytest.mark.slow

EXITS = [1, 2, 3]
SETTINGS = [
    "+experiment=proscale_shapes",
    *TINY_SHAPES,
    *SMALL_MODEL,
    "dim=64",  # two channels share a group norm, else the mean of each is zero, and a gate sees nothing
    "num_queries=20",
    "exits=[1,2,3]",
    "model/gate=linear",
    "task.postprocess.object_threshold=0.0",
    "task.postprocess.overlap_threshold=0.0",
]
REAL = ROOT.parent / "shared" / "data" / "coco" / "val2017"


def save(settings: list[str], folder: Path, spread: float = 0.5) -> Path:
    """The checkpoint of a model with random weights that finds something, and a gate that chooses several exits."""
    task, _, trainer = build_run(configure([*settings, f"paths.run={folder}", "~logger", "callbacks=[]"]), settings)
    model: Any = task.model
    torch.manual_seed(1)
    torch.nn.init.normal_(model.gate.head.weight)
    torch.nn.init.normal_(model.decoder.class_embed.weight, std=spread)
    model.decoder.class_embed.bias.data[-1] = -9
    trainer.strategy.connect(task)
    trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(SETTINGS, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of four sizes, which are looked at in three."""
    folder = tmp_path_factory.mktemp("photos")
    scenes = Shapes(8, 96)
    for index, (height, width) in enumerate([(96, 96), (80, 60), (48, 96), (60, 80)] * 2):
        pixels = scenes[index].image[:, :height, :width].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def ask(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """What the command leaves behind."""

    def ask(*arguments: object) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["src.predict"])
        typed = [str(argument) for argument in arguments]
        mine = [f"ckpt_path={checkpoint}", f"out={tmp_path / 'out'}"]
        run(predict, saved_overrides([*mine, *gathered(typed)]), "predict")
        return tmp_path / "out"

    return ask


def load(checkpoint: Path, *settings: str) -> Predictor:
    return Predictor.load(checkpoint, "trainer.accelerator=cpu", *settings)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def same(some: list[Any], others: list[Any], tolerance: float = 1e-5) -> None:
    """Refuse answers whose exits and costs differ, whose scores differ by more, or so great a share of pixels."""
    for one, other in zip(some, others, strict=True):
        assert (one.exit, one.gflops) == (other.exit, other.gflops)
        for mine, theirs in zip(fields(one), fields(other), strict=True):
            assert mine.shape == theirs.shape
            if mine.is_floating_point():
                torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)
            else:
                assert int((mine != theirs).sum()) <= tolerance * mine.numel()


def fields(answer: Any) -> list[torch.Tensor]:
    """All maps, classes and scores of an answer."""
    semantic = [] if answer.semantic is None else [answer.semantic]
    return [*(answer.panoptic or ()), *(answer.instances or ()), *semantic]


# ---- the command


def test_what_it_writes_is_in_cocos_form(ask: Callable[..., Path], photos: Path, checkpoint: Path) -> None:
    """Every file says what the class answers: segments, instances, classes, exits and costs."""
    out = ask(photos)
    predictor = load(checkpoint)
    answers = predictor(files(photos))
    ids = {place: category.id for place, category in enumerate(predictor.categories)}
    rows = {row["name"]: row for row in csv.DictReader((out / "exits.csv").open())}
    listed = json.loads((out / "panoptic.json").read_text())
    entries = {entry["image_id"]: entry for entry in listed["annotations"]}
    results = json.loads((out / "instances.json").read_text())
    assert [category["name"] for category in listed["categories"]] == [c.name for c in predictor.categories]
    for file, answer in zip(files(photos), answers, strict=True):
        image_id = int(file.stem)
        assert (rows[file.stem]["file"], rows[file.stem]["image_id"]) == (str(file), file.stem)
        assert (int(rows[file.stem]["exit"]), float(rows[file.stem]["gflops"])) == (3, answer.gflops)
        colors = np.asarray(Image.open(out / "panoptic" / entries[image_id]["file_name"])).astype(int)
        assert np.array_equal(colors @ (1, 256, 65536), answer.panoptic.ids)
        for segment in entries[image_id]["segments_info"]:
            mask = answer.panoptic.ids == segment["id"]
            assert segment["area"] == int(mask.sum()) > 0
            assert segment["category_id"] == ids[int(answer.panoptic.labels[segment["id"] - 1])]
            runs = run_lengths.encode(np.asfortranarray(mask.numpy()))
            assert segment["bbox"] == run_lengths.toBbox(runs).tolist()
        listed_ids = {segment["id"] for segment in entries[image_id]["segments_info"]}
        assert listed_ids == {*answer.panoptic.ids.unique().tolist()} - {0}
        mine = [result for result in results if result["image_id"] == image_id]
        scores = [result["score"] for result in mine]
        assert scores == sorted(scores, reverse=True)
        assert sum(run_lengths.area(result["segmentation"]) for result in mine) == answer.instances.masks.sum()
        classes = np.asarray(Image.open(out / "semantic" / f"{file.stem}.png"))
        assert np.array_equal(classes, np.vectorize(ids.get)(answer.semantic))
        assert Image.open(out / "overlays" / f"{file.stem}.jpg").size == Image.open(file).size


def test_pycocotools_takes_the_results(ask: Callable[..., Path], photos: Path) -> None:
    """As they are."""
    out = ask(photos, "outputs=[instances]")
    truth = COCO()
    truth.dataset = {"images": [{"id": number} for number in range(8)], "annotations": [], "categories": []}
    truth.createIndex()
    results = truth.loadRes(str(out / "instances.json")).anns
    assert len(results) > 0
    assert all(one["area"] == run_lengths.area(one["segmentation"]) for one in results.values())  # not of a box
    assert {path.name for path in out.iterdir()} == {".hydra", "exits.csv", "instances.json"}


def test_what_is_broken_is_named_and_the_rest_is_done(
    ask: Callable[..., Path], photos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With exit status 1; names with blanks, quotes and other letters are names."""
    names = ["it's, [1] = ü 名.png", "b.png"]
    for name in names:
        (tmp_path / name).write_bytes((photos / "0.png").read_bytes())
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(SystemExit) as stop:
        ask(*(tmp_path / name for name in names), tmp_path / "broken.png", "data.eval_batch_size=2")
    assert stop.value.code == 1
    errors = capsys.readouterr().err
    assert f"skipped {tmp_path}/broken.png: cannot be decoded" in errors
    assert "error: 1 of 3 files skipped" in errors
    assert {path.stem for path in (tmp_path / "out" / "panoptic").iterdir()} == {Path(name).stem for name in names}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.jpg"], "photos=nothing.jpg: no such file or folder"),
        (["*.jpg"], "photos=*.jpg: nothing matches this pattern"),
        ([], "nothing to segment"),
        (["exit=7"], "exit=7: the model has the exits [1, 2, 3]"),
        (["exit=0"], "exit=0: expected a whole number from 1"),
        (["exit=2", "gate=own"], "exit=2 and gate=own: both choose"),
        (["beta=0.1"], "beta=0.1: "),
        (["budget_gflops=1e-9"], "budget_gflops=1e-09: an image costs"),
        (["budget_ms=5"], "latency.json; python -m src.measure ckpt_path=FILE writes it"),
        (["budget_ms=5", "latency=gone.json"], "latency=gone.json: no such file"),
        (["budget_ms=5", "budget_gflops=1"], "budget_gflops=1 and budget_ms=5: both"),
        (["budget_ms=0"], "budget_ms=0: expected a number above 0, or null"),
        (["exit=2", "budget_gflops=5"], "exit=2 and budget_gflops=5"),
        (["budget_per_image=true"], "budget_per_image=true: expected budget_gflops=N or budget_ms=N"),
        (["budget_per_image=perhaps"], "budget_per_image=perhaps: expected true or false"),
        (["scales=[0]"], "scales=[0]: expected a list of numbers above 0"),
        (["outputs=[masks]"], "expected some of overlays, panoptic"),
        (
            ["outputs=[semantic,boxes]"],
            "outputs=[semantic,boxes]: the model predicts no boxes with segmentation=panoptic; expected some of "
            "overlays, panoptic, instances, semantic, or null",
        ),
        (["categories=coco"], "/coco. Expected ade20k, camvid, cityscapes, coco_instances"),
        (["categories=coco_panoptic"], "categories=coco_panoptic: has 133, expected 8"),
        (["ckpt_path=gone.ckpt"], "ckpt_path=gone.ckpt: no such file"),
        (["out=/proc/nowhere"], "nothing can be written in"),
        (["exti=2"], "'exti', did you mean 'exit'"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], message: str, ask: Callable[..., Path], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what was expected."""
    inputs = [] if message.startswith(("nothing to", "photos")) else [photos]
    assert message in error_line(capsys, lambda: ask(*inputs, *arguments))


def test_a_full_disk_ends_in_one_line_and_leaves_whole_files(
    ask: Callable[..., Path], photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which hold every answer before."""
    keep, out = Image.Image.save, Path("out")

    def until_full(image: Image.Image, file: Path, **options: Any) -> None:
        if Path(file).parts[-2:] == ("overlays", ".5.part.jpg"):
            raise OSError(errno.ENOSPC, "No space left on device")
        keep(image, file, **options)

    monkeypatch.setattr(Image.Image, "save", until_full)
    line = error_line(capsys, lambda: ask(photos, "data.eval_batch_size=1"))
    assert "overlays/5.jpg: cannot be written, the disk /" in line
    assert not (out / "overlays" / "5.jpg").exists()
    ids = [entry["image_id"] for entry in json.loads((out / "panoptic.json").read_text())["annotations"]]
    assert ids == [0, 1, 2, 3, 4]
    assert {4} <= {entry["image_id"] for entry in json.loads((out / "instances.json").read_text())} <= {*ids}
    assert len((out / "exits.csv").read_text().splitlines()) == 6


def test_a_video_becomes_one_and_its_frames(ask: Callable[..., Path], photos: Path, tmp_path: Path) -> None:
    """Overlays in one file, of the same length and rate; every frame in the other outputs."""
    pytest.importorskip("av")
    from src.prediction.video import Recorder, num_frames, rate

    recorder = Recorder(tmp_path / "clip.mp4", (96, 96), Fraction(10))
    for _ in range(5):
        recorder.write(Image.open(photos / "0.png"))
    recorder.close()
    out = ask(tmp_path / "clip.mp4", photos / "1.png", tmp_path / "clip.mp4", "data.eval_batch_size=2")
    assert num_frames(out / "overlays" / "clip.mp4") == 5
    assert rate(out / "overlays" / "clip.mp4") == 10
    names = [entry["file_name"] for entry in json.loads((out / "panoptic.json").read_text())["annotations"]]
    assert names == [*(f"clip/{number:06d}.png" for number in range(1, 6)), "1.png"]
    assert all((out / "panoptic" / name).is_file() for name in names)


def test_inputs_stand_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that set nothing are inputs, and so is what is there, whatever it is called."""
    monkeypatch.chdir(tmp_path)
    Path("seed=0").mkdir()
    assert gathered(["a.jpg", "exit=2", "-m", "seed=0", "~logger", "--cfg", "job"]) == [
        "exit=2", "-m", "~logger", "--cfg", "job", "photos=['a.jpg','seed=0']"
    ]  # fmt: skip


# ---- the class


def test_a_batch_answers_as_its_images_do_alone(checkpoint: Path, photos: Path) -> None:
    """Of mixed sizes, at the exits that a gate chooses; what comes first, last or waits is the same."""
    alone, together = (
        load(checkpoint, "gate=own", f"data.eval_batch_size={size}", "task.postprocess.object_threshold=0.1")(
            files(photos)
        )
        for size in (1, 4)
    )
    assert len({answer.exit for answer in alone}) > 1
    same(alone, together)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real images")
def test_real_images_answer_alike_in_any_batch(checkpoint: Path) -> None:
    """A few of COCO's, which are hardly two of a size."""
    chosen = sorted(REAL.glob("*.jpg"))[:6]
    same(*(load(checkpoint, f"data.eval_batch_size={size}")(chosen) for size in (1, 4)))


def test_batches_are_of_one_size_and_wait_in_bounds(checkpoint: Path) -> None:
    """Photos of a size go together however they come, in order; too many sizes do not pile up."""
    predictor = load(checkpoint, "data.eval_batch_size=2")
    batches: list[list[int]] = []
    predictor.answers = lambda batch, whole: batches.append([key for key, _ in batch]) or iter(())  # type: ignore
    wide, tall = torch.zeros(3, 32, 64, dtype=torch.uint8), torch.zeros(3, 64, 32, dtype=torch.uint8)
    list(predictor.stream(enumerate([wide, tall, wide, tall, tall])))
    assert batches == [[0, 2], [1, 3], [4]]
    batches.clear()
    predictor.task.padded = list  # of which no two are alike
    waiting = []

    def photos() -> Iterator[tuple[int, torch.Tensor]]:
        for number in range(99):
            waiting.append(number - sum(map(len, batches)))
            yield number, torch.zeros(3, number, 1)

    list(predictor.stream(photos()))
    assert max(waiting) < 16
    assert sum(map(len, batches)) == 99


def test_an_exit_or_a_budget_says_where_images_leave(checkpoint: Path, photos: Path) -> None:
    """A fixed exit costs what src.cost counts; a budget takes the deepest exit within it, image by image."""
    by_exit = [load(checkpoint, f"exit={depth}")(files(photos)) for depth in EXITS]
    model = load(checkpoint).task.model
    expected = count(model, (64, 64), [2], pixels=96 * 96)[2].total
    assert by_exit[1][0].gflops == pytest.approx(expected)
    budget = by_exit[1][0].gflops * 1.0001
    answers = load(checkpoint, f"budget_gflops={budget}")(files(photos))
    assert answers[0].exit == 2
    assert len({answer.exit for answer in answers}) > 1
    for place, answer in enumerate(answers):
        costs = [row[place].gflops for row in by_exit]
        assert answer.exit == EXITS[sum(cost <= budget for cost in costs) - 1]
        same([answer], [by_exit[answer.exit - 1][place]])


def test_a_budget_in_milliseconds_goes_by_the_table(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    """A hundred milliseconds for a GFLOP: images leave where the same budget in GFLOPs lets them, of two views too."""
    rows = [Row((64, 64), depth, 1.0, 100.0, 99.0, 101.0, 3) for depth in EXITS]
    file, day = tmp_path / "times.json", "2026-11-27"
    update(file, LatencyTable(machine_of(torch.device("cpu")), "torch 2.0", "float32", day, rows))
    for more in ([], ["mirror=true"]):
        budget = load(checkpoint, "exit=2", *more)(files(photos)[:1])[0].gflops * 1.0001
        expected = load(checkpoint, f"budget_gflops={budget}", *more)(files(photos))
        answers = load(checkpoint, f"budget_ms={100 * budget}", f"latency={file}", *more)(files(photos))
        assert len({answer.exit for answer in answers}) > 1
        same(answers, expected)
        assert [answer.ms for answer in answers] == pytest.approx([100 * answer.gflops for answer in answers])
        assert {answer.ms for answer in expected} == {None}


def test_a_gate_that_no_image_may_exceed(checkpoint: Path, photos: Path) -> None:
    """Its choice where an image can afford it, else one that it can."""
    free = load(checkpoint, "gate=own")(files(photos))
    limit = max(answer.gflops for answer in load(checkpoint, "exit=1")(files(photos)))  # all can leave somewhere
    kept = load(checkpoint, "gate=own", f"budget_gflops={limit}", "budget_per_image=true")(files(photos))
    assert max(answer.gflops for answer in kept) <= limit < max(answer.gflops for answer in free)
    pairs = [(one, other) for one, other in zip(free, kept, strict=True) if one.gflops <= limit]
    same([one for one, _ in pairs], [other for _, other in pairs])


def test_a_large_photo_is_written_as_it_is_answered(ask: Callable[..., Path], checkpoint: Path, photos: Path) -> None:
    """Maps, areas, boxes and run lengths in files are those of the enlarged answer."""
    out = ask(photos / "0.png", "max_pixels=2000")
    answer = load(checkpoint, "max_pixels=2000")([photos / "0.png"])[0]
    (entry,) = json.loads((out / "panoptic.json").read_text())["annotations"]
    colors = np.asarray(Image.open(out / "panoptic" / "0.png")).astype(int)
    assert np.array_equal(colors @ (1, 256, 65536), answer.panoptic.ids)
    for segment in entry["segments_info"]:
        runs = run_lengths.encode(np.asfortranarray((answer.panoptic.ids == segment["id"]).numpy()))
        assert (segment["area"], segment["bbox"]) == (run_lengths.area(runs), run_lengths.toBbox(runs).tolist())
    order = answer.instances.scores.argsort(descending=True).tolist()
    drawn = [run_lengths.encode(np.asfortranarray(answer.instances.masks[place].numpy())) for place in order]
    written = [one["segmentation"]["counts"] for one in json.loads((out / "instances.json").read_text())]
    assert written == [runs["counts"].decode() for runs in drawn if run_lengths.area(runs)]
    assert np.asarray(Image.open(out / "semantic" / "0.png")).shape == (96, 96)


def test_a_large_photo_is_answered_smaller_and_enlarged(checkpoint: Path, photos: Path) -> None:
    """At its own size, each pixel as the nearest of the smaller answer."""
    small = load(checkpoint, "max_pixels=2304")([photos / "0.png"])[0]
    assert small.panoptic.ids.shape == small.semantic.shape == small.instances.masks.shape[1:] == (96, 96)
    assert torch.equal(small.semantic, small.semantic[::2, ::2].repeat_interleave(2, 0).repeat_interleave(2, 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_photos_of_any_shape_are_answered(size: tuple[int, int], checkpoint: Path) -> None:
    """A pixel, a line."""
    for settings in ([], ["mirror=true", "scales=[0.5,1.0]"]):
        answer = load(checkpoint, *settings)([np.zeros((*size, 3), np.uint8)])[0]
        assert tuple(answer.panoptic.ids.shape) == tuple(answer.semantic.shape) == size


def test_published_weights_name_their_classes_by_a_benchmark(tmp_path: Path) -> None:
    """No data are there, and no other setting is needed."""
    torch.save({"model": weights(published.mask2former_resnet50())}, tmp_path / "model.pth")
    settings = ["+experiment=mask2former_coco", f"data.root={tmp_path}", "trainer.accelerator=cpu"]
    with pytest.raises(ValueError, match="categories=null: the weights do not name their classes"):
        Predictor.load(tmp_path / "model.pth", *settings)
    predictor = Predictor.load(tmp_path / "model.pth", *settings, "categories=coco_panoptic", "data.resize.short=64")
    assert [category.name for category in predictor.categories[:2]] == ["person", "bicycle"]
    assert predictor([np.zeros((8, 8, 3), np.uint8)])[0].semantic.shape == (8, 8)


def test_a_setting_that_is_none_is_said_from_python_too(checkpoint: Path) -> None:
    """As on the command line."""
    with pytest.raises(ValueError, match=r"no setting 'exitt'.*exit"):
        load(checkpoint, "exitt=2")


# ---- several views


def test_one_view_is_no_augmentation(checkpoint: Path, photos: Path) -> None:
    """Bit for bit."""
    same(load(checkpoint)(files(photos)), load(checkpoint, "scales=[1.0]", "mirror=false")(files(photos)), 0)


@pytest.mark.parametrize("scales", ["[1.0]", "[1.0,0.75,1.5]"])
def test_a_mirrored_photo_has_the_mirrored_answer(scales: str, checkpoint: Path, photos: Path) -> None:
    """Where it is looked at mirrored too, and so a symmetric one a symmetric answer; else not."""
    photo = np.asarray(Image.open(photos / "1.png").convert("RGB"))
    symmetric = np.concatenate([photo[:, :40], photo[:, 39::-1]], 1)
    sizes = ["data.resize.short=72", "data.resize.long=96"]  # of which not all are a multiple of the padding

    def asymmetry(image: np.ndarray, predictor: Predictor) -> float:
        """The share of pixels whose class differs, of the segments or of the semantic map."""
        maps = []
        for answer in predictor([image, image[:, ::-1].copy()]):
            labels = torch.cat([answer.panoptic.labels.new_tensor([-1]), answer.panoptic.labels])
            maps.append(torch.stack([answer.semantic, labels[answer.panoptic.ids.long()]]))
        return float((maps[0] != maps[1].flip(-1)).float().mean((1, 2)).max())

    plain = load(checkpoint, *sizes, f"scales={scales}")
    both = load(checkpoint, *sizes, f"scales={scales}", "mirror=true")
    for image in (photo, symmetric):
        assert asymmetry(image, both) < 0.01 < 0.03 < asymmetry(image, plain)


@pytest.mark.parametrize("segmentation", ["panoptic", "instance", "semantic"])
def test_views_add_up_for_every_task(segmentation: str, photos: Path, tmp_path: Path) -> None:
    """They all cost, and none depends on the batch."""
    settings = [*SETTINGS, f"segmentation={segmentation}"]
    file = save(settings, tmp_path)
    views = ["scales=[1.0,0.5]", "mirror=true", "data.eval_batch_size=3"]
    once, augmented = load(file)(files(photos)), load(file, *views)(files(photos))
    for one, answer in zip(once, augmented, strict=True):
        assert 2 * one.gflops < answer.gflops < 4 * one.gflops
    same(load(file, *views)(files(photos)[:2]), augmented[:2])
