"""`python -m src.export`: what it writes, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.config.build import build_run
from src.data.shapes import Shapes
from src.export import export
from src.exporting.folder import check_files
from src.exporting.manifest import read_manifest
from src.exporting.runtime import Router
from src.predictor import Predictor
from src.weights.checkpoint import fingerprint
from tests.exporting.made_up import SMALL
from tests.helpers import TINY_SHAPES, compose_run, error_line

pytestmark = pytest.mark.slow

SETTINGS = [
    "+experiment=mask2former_shapes",
    *dict.fromkeys([*TINY_SHAPES, *SMALL]),
    "schedule=[0,0,2]",
    "exits=[1,2]",
    "model/gate=linear",
    "task.postprocess.object_threshold=0.0",
    "task.postprocess.overlap_threshold=0.0",
]
Command = Callable[..., None]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights that finds something, and a gate that chooses both exits."""
    folder = tmp_path_factory.mktemp("model")
    task, _, trainer = build_run(compose_run(folder, *SETTINGS, "~logger", "callbacks=[]"), SETTINGS)
    model: Any = task.model
    torch.manual_seed(1)
    torch.nn.init.normal_(model.gate.head.weight)
    torch.nn.init.normal_(model.decoder.class_embed.weight, std=0.5)
    model.decoder.class_embed.bias.data[-1] = -9
    trainer.strategy.connect(task)
    trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


def test_what_it_writes_answers_as_src_predict(
    command: Command, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A complete folder; without torch the same segments, scores and exits of photos of two sizes."""
    out = tmp_path / "out"
    command(export, "export", f"ckpt_path={checkpoint}", f"out={out}", "gate=own", "licence=CC0")
    assert "weights.bin" in capsys.readouterr().out
    manifest = read_manifest(out)
    check_files(out, manifest)
    assert {file.name for file in out.iterdir()} == {"manifest.json", *manifest["files"]}
    assert {"runtime.py", "README.md", "trunk.onnx", "tail_1.onnx", "tail_2.onnx"} <= set(manifest["files"])
    assert max(one["mask_logits"] for one in manifest["checked"]) < 1e-3
    assert manifest["gate"]["exits"] == manifest["exits"] == [1, 2]
    assert (out / "README.md").read_text().startswith("---\nlicense: other\nlicense_name: CC0\n")
    predictor = Predictor.load(checkpoint, "trainer.accelerator=cpu", "gate=own")
    assert manifest["weights"]["fingerprint"] == fingerprint(predictor.task.model)
    photos = [scene(number, size, tmp_path) for number, size in enumerate([(64, 64), (48, 64), (64, 64)])]
    for mine, theirs in zip(Router(out)(photos), predictor(photos), strict=True):
        assert mine.exit == theirs.exit
        assert np.mean(mine.panoptic.ids != theirs.panoptic.ids.numpy()) < 1e-3
        np.testing.assert_allclose(mine.panoptic.scores, theirs.panoptic.scores.numpy(), atol=1e-3)


def scene(number: int, size: tuple[int, int], folder: Path) -> str:
    """A photo of made shapes."""
    height, width = size
    pixels = Shapes(4, 64)[number].image[:, :height, :width].permute(1, 2, 0).numpy()
    file = folder / f"{number}.png"
    Image.fromarray(pixels).save(file)
    return str(file)


def test_half_precision_and_fixed_sizes(command: Command, checkpoint: Path, tmp_path: Path) -> None:
    """Complete files of one size and one image, half as large, near to torch; a second export replaces the first."""
    out = tmp_path / "out"
    fixed = [f"ckpt_path={checkpoint}", f"out={out}", "form=whole", "sizes=[[64,96]]", "batch=1"]
    files, sizes = {"1": "exit_1_64x96.onnx", "2": "exit_2_64x96.onnx"}, []
    for precision in ("float32", "float16"):
        command(export, "export", *fixed, f"precision={precision}")
        manifest = read_manifest(out)
        check_files(out, manifest)
        assert manifest["graphs"] == [{"size": [64, 96], "batch": 1, "exits": files}]
        sizes.append(weights_in(out / "exit_2_64x96.onnx"))
    assert sizes[1] < 0.7 * sizes[0]
    assert manifest["precision"] == "float16"
    assert manifest["gate"] is None
    assert 1e-6 < max(one["mask_logits"] for one in manifest["checked"]) < 0.3


@pytest.mark.parametrize("form", ["split", "whole"])
def test_int8(
    form: str, command: Command, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Smaller files, differences on the calibration for each exit, and a router that answers with them."""
    photos = [scene(number, (64, 64), tmp_path) for number in range(3)]
    int8 = ["precision=int8", f"calibration={tmp_path}/*.png"]
    command(export, "export", f"ckpt_path={checkpoint}", f"form={form}", "gate=own", f"out={tmp_path / 'out'}", *int8)
    manifest = read_manifest(tmp_path / "out")
    assert "other class" in capsys.readouterr().out
    check_files(tmp_path / "out", manifest)
    largest = max(entry["bytes"] for entry in manifest["files"].values())
    state = torch.load(checkpoint, weights_only=False)["state_dict"]
    assert largest < 0.8 * sum(value.numel() * 4 for value in state.values())
    assert manifest["precision"] == "int8"
    assert [one["exit"] for one in manifest["checked"]] == [1, 2]
    for one in manifest["checked"]:
        assert 0 <= one["changed"] < 0.5
        assert 0 < one["mean_mask_logits"] < one["mask_logits"]
        assert one["scores"] is not None
    assert "of other class" in (tmp_path / "out" / "README.md").read_text()
    assert {answer.exit for answer in Router(tmp_path / "out")(photos)} <= {1, 2}
    assert rounded_products(tmp_path / "out" / ("tail_2.onnx" if form == "split" else "exit_2.onnx")) >= 28


def rounded_products(file: Path) -> int:
    """The matrix products with weights in int8: 10 in a decoder layer, 4 in an encoder layer."""
    import onnx

    nodes = onnx.load(file, load_external_data=False).graph.node
    return sum(node.op_type == "MatMul" and node.input[1].endswith("/weight") for node in nodes)


def weights_in(file: Path) -> int:
    """The bytes of all tensors of a graph."""
    import onnx

    return sum(len(tensor.raw_data) for tensor in onnx.load(file).graph.initializer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out=null"], "out=null: expected out=FOLDER"),
        (["out=mine"], "expected a new or empty folder"),
        (["out=new", "sizes=[[60,96]]"], "expected multiples of 32, such as [64, 96]"),
        (["out=new", "sizes=instances.json"], "expected a list of [height, width]"),
        (["out=new", "form=half"], "form=half: expected split or whole"),
        (["out=new", "precision=bf16"], "precision=bf16: expected float32 or float16"),
        (["out=new", "precision=int8"], "expected calibration=FOLDER, a photo or a pattern"),
        (["out=new", "calibration=mine"], "calibration=mine: no image or video in this folder"),
        (["out=new", "precision=int8", "calibration=nowhere"], "calibration=nowhere: no such file or folder"),
        (["out=new", "precision=int8", "calibration=[text.jpg]"], "text.jpg"),
        (["out=new", "calibration=photo.png"], "precision=float32 calibration=given"),
        (["out=new", "exit=7"], "the model has the exits [1, 2]"),
        (["out=new", "gate=nowhere.ckpt"], "no such file"),
        (["out=new", "+experiment=detr_shapes"], "detectors are not exported"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str],
    message: str,
    command: Command,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is traced, and nothing is left behind."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.json").write_text(json.dumps({}))
    (tmp_path / "text.jpg").write_text("no image")
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    before = {*tmp_path.iterdir()}
    settings = [f"ckpt_path={checkpoint}", *arguments]
    assert message in error_line(capsys, lambda: command(export, "export", *settings))
    assert {*tmp_path.iterdir()} == before
