"""The router on made graphs: exits, batches, sizes, budgets, files and error lines."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from pycocotools import mask as run_lengths

from src.exporting import runtime
from src.exporting.runtime import Router
from tests.exporting.tiny_export import EXITS, manifest, write_export, write_manifest
from tests.helpers import error_line

SIZES = [(70, 90), (64, 64), (90, 70), (40, 200), (64, 100), (300, 310), (50, 48), (77, 101)]


@pytest.fixture
def photos() -> list[np.ndarray]:
    """Photos of several sizes, each of colours of its own, so that the gate sends them to different exits."""
    random = np.random.default_rng(0)
    return [blobs(random, *size) for size in SIZES]


def blobs(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = random.integers(0, 256, (4, 5, 3)) * random.random(3) + random.integers(-90, 90)
    return np.array(Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((width, height)))


def same(some: list[runtime.Answer], others: list[runtime.Answer]) -> None:
    """Refuse answers that differ in a map, a class, an exit or a score."""
    for one, other in zip(some, others, strict=True):
        assert (one.exit, one.size) == (other.exit, other.size)
        assert np.array_equal(one.panoptic.ids, other.panoptic.ids)
        assert np.array_equal(one.instances.masks, other.instances.masks)
        assert np.array_equal(one.semantic, other.semantic)
        pairs = zip(one.panoptic[1:] + one.instances[:2], other.panoptic[1:] + other.instances[:2], strict=True)
        assert all(mine == pytest.approx(theirs, abs=1e-5) for mine, theirs in pairs)


# ---- answers


def test_the_file_imports_nothing_else() -> None:
    """The standard library, numpy, Pillow and onnxruntime: it is copied beside the models and runs there."""
    tree = ast.parse(Path(runtime.__file__).read_text())
    names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "numpy", "PIL", "onnxruntime"}


def test_a_batch_of_mixed_exits_is_each_photo_alone(tmp_path: Path, photos: list[np.ndarray]) -> None:
    """Several exits and sizes in one call."""
    router = Router(write_export(tmp_path))
    together = router(photos)
    assert len({answer.exit for answer in together}) > 1
    assert [answer.size for answer in together] == SIZES
    assert any(len(answer.panoptic.labels) > 1 for answer in together)
    same(together, [router([photo])[0] for photo in photos])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("form", ["split", "whole"])
def test_fixed_batches_and_both_forms_answer_alike(
    tmp_path: Path, photos: list[np.ndarray], batch: int, form: str
) -> None:
    """A batch is filled up, or run in parts."""
    expected = Router(write_export(tmp_path / "any"))(photos)
    same(Router(write_export(tmp_path / "fixed", form, batch=batch))(photos), expected)


@pytest.mark.parametrize("form", ["split", "whole"])
def test_a_gate_changes_where_and_not_what(tmp_path: Path, photos: list[np.ndarray], form: str) -> None:
    """At the exit that the gate chose, the answer is that of the fixed exit."""
    router = Router(write_export(tmp_path, form))
    gated = router(photos)
    for depth in EXITS:
        router.choose_by(exit=depth)
        same([one for one in gated if one.exit == depth], [
            one for one, other in zip(router(photos), gated, strict=True) if other.exit == depth
        ])  # fmt: skip


def test_tails_are_loaded_when_first_needed(tmp_path: Path, photos: list[np.ndarray]) -> None:
    """One exit needs the trunk and one tail."""
    router = Router(write_export(tmp_path), exit=2)
    router(photos[:1])
    assert set(router.sessions) == {"trunk.onnx", "tail_2.onnx"}


@pytest.mark.parametrize(
    ("photo", "resized", "padded"),
    [
        ((64, 64), (64, 64), (64, 64)),  # the smallest that holds it
        ((60, 120), (64, 128), (64, 128)),
        ((120, 60), (64, 32), (64, 64)),  # none holds 128 x 64: it is shrunk, into the largest
        ((90, 100), (64, 71), (64, 128)),
    ],
)
def test_of_fixed_sizes_the_smallest_that_holds_a_photo_is_taken(
    tmp_path: Path, photo: tuple[int, int], resized: tuple[int, int], padded: tuple[int, int]
) -> None:
    """A photo that none holds is shrunk to fit the largest."""
    router = Router(write_export(tmp_path, sizes=[(64, 128), (64, 64)]), exit=1)
    found, into, graph = router.fit(photo)
    expected = (64, 128) if photo == (120, 60) else padded
    assert (found, into, tuple(graph["size"])) == (resized, expected, expected)
    (answer,) = router([np.zeros((*photo, 3), np.uint8)])
    assert answer.semantic.shape == photo


def test_maps_of_a_large_photo_are_computed_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of at most MAX_PIXELS, and enlarged only when asked for."""
    monkeypatch.setattr(runtime, "MAX_PIXELS", 1000)
    router = Router(write_export(tmp_path))
    photo = blobs(np.random.default_rng(1), 100, 120)
    (small,), (large,) = router.answers([photo]), router([photo])
    assert small.panoptic.ids.shape == (28, 34)
    assert large.panoptic.ids.shape == (100, 120)
    same([small.whole()], [large])


# ---- budgets


def test_a_larger_price_never_sends_an_image_deeper(tmp_path: Path, photos: list[np.ndarray]) -> None:
    """From all at the deepest exit to all at the shallowest, as beta rises."""
    router = Router(write_export(tmp_path))
    depths = []
    for beta in (0.0, 0.005, 0.01, 0.02, 0.5, 1.0):
        router.choose_by(beta=beta)
        depths.append([answer.exit for answer in router.answers(photos)])
    assert all((np.array(before) >= after).all() for before, after in pairwise(depths))
    assert set(depths[-1]) == {1}
    assert len(set(map(tuple, depths))) > 2


def test_of_beta_the_price_is_on_the_line_between_known_betas(tmp_path: Path) -> None:
    """And that of the gate as it was set, without a beta."""
    router = Router(write_export(tmp_path))
    assert router.choose.price == 0.1
    for beta, price in ((0.0, 0.0), (0.005, 0.05), (0.02, 0.2), (5.0, 9.0)):
        router.choose_by(beta=beta)
        assert router.choose.price == pytest.approx(price)


@pytest.mark.parametrize(("budget", "price"), [(3.0, 0.0), (2.9, 0.1), (2.5, 0.1), (2.4, 0.2), (1.49, 9.0), (1.0, 9.0)])
def test_a_mean_budget_takes_the_smallest_price_that_keeps_it(tmp_path: Path, budget: float, price: float) -> None:
    """Shares of the held-out images at each exit times its cost, for the size of the image."""
    router = Router(write_export(tmp_path), budget_gflops=budget)
    assert router.choose.of_budget(router.costs.gflops((64, 64))) == price


def test_without_a_gate_the_deepest_exit_within_the_budget_is_taken(tmp_path: Path) -> None:
    """By the cost of each image's own size."""
    router = Router(write_export(tmp_path, gate=None), budget_gflops=2.5)
    answers = router([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 128, 3), np.uint8)])
    assert [(answer.exit, answer.gflops) for answer in answers] == [(2, 2.0), (1, 2.0)]


def test_per_image_no_image_costs_more(tmp_path: Path, photos: list[np.ndarray]) -> None:
    """The gate chooses among the exits within the budget."""
    router = Router(write_export(tmp_path), beta=0.0)
    free = router.answers(photos)
    router.choose_by(beta=0.0, budget_gflops=4.0, per_image=True)
    bound = router.answers(photos)
    assert max(answer.gflops for answer in bound) <= 4.0 < max(answer.gflops for answer in free)
    assert all(b.exit == f.exit for b, f in zip(bound, free, strict=True) if f.gflops <= 4.0)


def test_a_budget_of_milliseconds_needs_and_uses_what_was_measured(tmp_path: Path) -> None:
    """On this machine: other machines' tables do not count."""
    folder = write_export(tmp_path, gate=None)
    other = {"machine": "abacus", "runtime": "onnxruntime 1.0", "precision": "float32", "measured": "2020-01-01"}
    rows = [{"size": [64, 64], "exit": depth, "gflops": float(depth), "ms": 10.0 * depth} for depth in EXITS]
    runtime.keep(other | {"rows": rows}, folder)
    with pytest.raises(ValueError, match=re.escape("latency.json has no times of")):
        Router(folder, budget_ms=25)
    mine = Router(folder).costs.machine
    runtime.keep(other | {"machine": mine, "rows": rows}, folder)
    router = Router(folder, budget_ms=25)
    assert router.costs.ms((64, 64)) == {1: 10, 2: 20, 3: 30}
    assert router.costs.ms((64, 128)) == {1: 20, 2: 40, 3: 60}  # in proportion to GFLOPs
    assert [router.choose(size, None) for size in ((64, 64), (64, 128))] == [2, 1]
    with pytest.raises(ValueError, match=r"budget_ms=5: an image of 64x64 costs 10 .* cheapest"):
        Router(folder, budget_ms=5).choose((64, 64), None)


def test_what_is_measured_is_kept_and_found_again(tmp_path: Path) -> None:
    """A row for every exit and size; a second measurement replaces the first, other machines' stay."""
    folder = write_export(tmp_path)
    table = runtime.measure(folder, rounds=2)
    runtime.keep(table, folder)
    runtime.keep(table | {"machine": "abacus"}, folder)
    runtime.keep(runtime.measure(folder, [(64, 96)], rounds=1), folder)
    tables = json.loads((folder / "latency.json").read_text())["tables"]
    assert [len(one["rows"]) for one in tables] == [6, 3]
    assert {(*row["size"], row["exit"]) for row in tables[1]["rows"]} == {(64, 96, depth) for depth in EXITS}
    assert all(row["low"] <= row["ms"] <= row["high"] for one in tables for row in one["rows"])
    Router(folder, budget_ms=1e9)


# ---- files


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., int]:
    """The command on a made export, with answers in `out`."""
    folder = write_export(tmp_path / "export")
    return lambda *words: runtime.main([f"--export={folder}", f"--out={tmp_path / 'out'}", *map(str, words)])


@pytest.fixture
def files(tmp_path: Path, photos: list[np.ndarray]) -> list[Path]:
    """The photos as files, two of one name in two folders."""
    made = []
    for number, photo in enumerate(photos[:3]):
        made.append(tmp_path / "photos" / str(number) / ("photo.png" if number < 2 else "it's ü.png"))
        made[-1].parent.mkdir(parents=True)
        Image.fromarray(photo).save(made[-1])
    return made


def test_what_it_writes_is_what_it_answers(ask: Callable[..., int], files: list[Path], tmp_path: Path) -> None:
    """Segments, instances and classes of each photo, under names of its own."""
    assert ask(tmp_path / "photos") == 0
    out, router = tmp_path / "out", Router(tmp_path / "export")
    assert {file.stem for file in (out / "json").iterdir()} == {"photo", "photo_2", "it's ü"}
    for name, file in zip(["photo", "photo_2", "it's ü"], files, strict=True):
        (answer,), found = router([file]), json.loads((out / "json" / f"{name}.json").read_text())
        assert (found["exit"], found["gflops"], tuple(found["size"])) == (answer.exit, answer.gflops, answer.size)
        colors = np.asarray(Image.open(out / "panoptic" / f"{name}.png")).astype(int)
        assert np.array_equal(colors @ (1, 256, 65536), answer.panoptic.ids)
        assert {one["id"] for one in found["segments_info"]} == {*answer.panoptic.ids.ravel().tolist()} - {0}
        for one in found["segments_info"]:
            mask = np.asfortranarray(answer.panoptic.ids == one["id"])
            assert one["area"] == mask.sum()
            assert one["bbox"] == run_lengths.toBbox(run_lengths.encode(mask)).tolist()
            assert one["category_id"] == 10 + answer.panoptic.labels[one["id"] - 1]
        masks = [run_lengths.decode(one["segmentation"]) for one in found["instances"]]
        kept = [mask for mask in answer.instances.masks if mask.any()]
        assert np.array_equal(masks, kept)
        classes = np.asarray(Image.open(out / "semantic" / f"{name}.png"))
        assert np.array_equal(classes, answer.semantic + 10)
        assert Image.open(out / "overlays" / f"{name}.jpg").size == answer.size[::-1]


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 31), (200, 300)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_masks_are_packed_as_coco_packs_them(size: tuple[int, int], share: float) -> None:
    """Byte by byte, short and long runs."""
    mask = np.random.default_rng(0).random(size) < share
    expected = run_lengths.encode(np.asfortranarray(mask, np.uint8))
    assert runtime.run_lengths(mask) == {"size": list(size), "counts": expected["counts"].decode()}


def test_unreadable_photos_are_named_and_the_rest_is_done(
    ask: Callable[..., int], files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit status 1."""
    (tmp_path / "photos" / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(SystemExit) as stop:
        ask(tmp_path / "photos")
    said = capsys.readouterr()
    assert stop.value.code == 1
    assert f"skipped {tmp_path}/photos/broken.png: cannot be decoded" in said.err
    assert "error: 1 of 4 files skipped" in said.err
    assert said.out.count("GFLOPs") == 3


def test_it_runs_beside_the_models_without_the_project(tmp_path: Path, files: list[Path]) -> None:
    """A copy in the export, isolated from this project, with nothing but a photo given."""
    folder = write_export(tmp_path / "export")
    shutil.copy(runtime.__file__, folder / "runtime.py")
    words = [sys.executable, "-I", str(folder / "runtime.py"), str(files[0])]
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    assert re.fullmatch(r".*photo.png: exit \d, [\d.]+ GFLOPs, [\d.]+ ms in the network, .*\n", said.stdout)
    assert (tmp_path / "answers" / "overlays" / "photo.jpg").is_file()


# ---- what is wrong


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--exit=7"], "exit=7: the export has the exits [1, 2, 3]"),
        (["--exit=1", "--beta=0.1"], "exit and beta: each chooses exits"),
        (["--per-image"], "per_image without a budget"),
        (["--budget-gflops=0"], "a budget that is not above 0"),
        (["--budget-gflops=0.01"], "budget_gflops=0.01: an image of 64x96 costs 1.5 at the cheapest exit"),
        (["--budget-ms=5"], "latency.json has no times of"),
        (["--exit=x"], "invalid int value"),
        (["--measure", "--sizes=60x64"], "sizes: the files do not take 60x64; expected multiples of 32"),
        (["--measure", "--sizes=60"], "argument --sizes"),
    ],
)
def test_a_wrong_setting_is_one_line(
    ask: Callable[..., int], files: list[Path], capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """Naming the setting, its value and what was expected."""
    assert message in error_line(capsys, lambda: ask(files[0], *words))


@pytest.mark.parametrize("photo", ["nothing.jpg", "empty"])
def test_no_photo_is_one_line(
    ask: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], photo: str
) -> None:
    """A missing file, and a folder without images."""
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / photo) in error_line(capsys, lambda: ask(tmp_path / photo))


def change(**entries: Any) -> Callable[[Path], None]:
    """Write other entries of the manifest."""

    def change(folder: Path) -> None:
        content = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(content | entries))

    return change


def cut(folder: Path) -> None:
    """Cut a model file short."""
    os.truncate(folder / "tail_3.onnx", 100)


def link(folder: Path) -> None:
    """Put a link to elsewhere in place of a model."""
    (folder / "tail_3.onnx").rename(folder.parent / "tail_3.onnx")
    (folder / "tail_3.onnx").symlink_to(folder.parent / "tail_3.onnx")


def link_unlisted(folder: Path) -> None:
    """Put a link beside the models, from which a graph could read weights."""
    (folder / "weights.bin").symlink_to("/etc/passwd")


def damage(folder: Path) -> None:
    """Write other bytes into a model file, as many."""
    size = (folder / "tail_3.onnx").stat().st_size
    (folder / "tail_3.onnx").write_bytes(b"\xff" * size)


def without_operator(folder: Path) -> None:
    """Ask for an operator that onnxruntime does not have."""
    model = onnx.load(folder / "tail_3.onnx")
    model.graph.node[-1].op_type = "Teleport"
    onnx.save(model, folder / "tail_3.onnx")
    write_manifest(folder, manifest("split", json.loads((folder / "manifest.json").read_text())["graphs"]))


def other_size(folder: Path) -> None:
    """Say that files take a size that they do not."""
    write_export(folder, sizes=[(64, 64)])
    content = json.loads((folder / "manifest.json").read_text())
    change(graphs=[content["graphs"][0] | {"size": [64, 96]}])(folder)


def data_elsewhere(folder: Path) -> None:
    """Let a graph read its weights from a file outside the export."""
    (folder.parent / "secret.bin").write_bytes(bytes(10**4))
    model = onnx.load(folder / "tail_3.onnx")
    tensor = model.graph.node[0].attribute[0].t
    moved = onnx.TensorProto(name="kernels", data_type=tensor.data_type, dims=tensor.dims, data_location=1)
    moved.external_data.add(key="location", value="../secret.bin")
    model.graph.initializer.append(moved)
    del model.graph.node[0]
    (folder / "tail_3.onnx").write_bytes(model.SerializeToString())
    write_manifest(folder, manifest("split", json.loads((folder / "manifest.json").read_text())["graphs"]))


FILE = {"bytes": 1, "sha256": ""}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "is no export, it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[" * 10**5), "manifest.json: cannot be read"),
        (change(format="other"), "is no manifest of an export"),
        (change(version=2), "version 2, this runtime.py reads version 1"),
        (change(divisor="32"), "manifest.divisor is '32', expected int"),
        (change(mean=[1, 2]), "mean and std are not three numbers each"),
        (change(exits=[2, 1]), "exits do not rise"),
        (change(default_exit=9), "default_exit or gate.exits are not among exits"),
        (change(segmentation="boxes"), "manifest.segmentation is 'boxes', expected semantic"),
        (change(gate={"exits": [1], "beta": 0, "price": 0, "prices": "x"}), "manifest.gate"),
        (change(files={}), "a graph is not among files"),
        (change(files={"../manifest.json": FILE}), "a graph is not among files"),
        (cut, "tail_3.onnx: has 100 bytes, the manifest says"),
        (lambda folder: (folder / "tail_3.onnx").unlink(), "tail_3.onnx: is missing"),
        (link, "'tail_3.onnx' is not in this folder itself"),
        (link_unlisted, "'weights.bin' is not in this folder itself"),
        (damage, "tail_3.onnx: onnxruntime"),
        (without_operator, "tail_3.onnx: onnxruntime"),
        (data_elsewhere, "tail_3.onnx: onnxruntime"),
        (other_size, "trunk_64x64.onnx: does not take images 1x3x64x96"),
    ],
)
def test_a_broken_export_is_one_line(
    tmp_path: Path, files: list[Path], capsys: pytest.CaptureFixture[str], harm: Callable[[Path], Any], message: str
) -> None:
    """Naming the file and what is wrong with it; no library's own lines beside it."""
    folder = write_export(tmp_path / "export", resize=None)
    harm(folder)
    words = [f"--export={folder}", f"--out={tmp_path / 'out'}", str(files[0])]
    words += ["--exit=3"] if folder.joinpath("manifest.json").exists() else []
    assert message in error_line(capsys, lambda: runtime.main(words))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/tail.onnx", "..", ".", "", "a\\..\\b"])
def test_no_path_of_a_manifest_leaves_its_folder(tmp_path: Path, name: str) -> None:
    """Absolute ones, those that go up or down, and Windows' own."""
    folder = write_export(tmp_path)
    content = json.loads((folder / "manifest.json").read_text())
    change(files=content["files"] | {name: FILE})(folder)
    with pytest.raises(ValueError, match="is not in this folder itself"):
        Router(folder)


def test_other_content_of_the_same_length_is_found_where_asked_for(tmp_path: Path) -> None:
    """By its SHA-256."""
    folder = write_export(tmp_path)
    Router(folder, verify=True)
    damage(folder)
    Router(folder)
    with pytest.raises(ValueError, match=r"tail_3.onnx: its SHA-256 is"):
        Router(folder, verify=True)


def test_a_missing_onnxruntime_is_one_line(
    ask: Callable[..., int], files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That says what to install."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install onnxruntime" in error_line(capsys, lambda: ask(files[0]))
