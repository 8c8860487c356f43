"""The graphs of an export: parts that are traced once, joined, and equal to the model in torch."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from src.exporting.checking import Check, check, noise, refuse_wrong, scores_of
from src.exporting.exporter import Traced, chains
from src.exporting.graphs import ANSWERS, LEVELS, parts_of
from src.exporting.onnx_files import WeightsFile
from src.exporting.session import Session
from src.exporting.tracing import Shape
from tests.exporting.made_up import look_back, model_of
from tests.helpers import ROOT

pytestmark = pytest.mark.slow

CLOSE = 1e-4
ANY = Shape(None, None)
VARIANTS = sorted(file.stem for file in (ROOT / "conf" / "variant").glob("*.yaml"))


def silent(line: str) -> None:
    """No progress."""


def written(model: Any, shape: Shape, folder: Path, gated: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of both forms; the graphs are traced once."""
    traced = Traced(parts_of(model, model.exits, gated), shape, silent)
    with WeightsFile(folder / "weights.bin") as weights:
        split = traced.split(folder, weights, model.exits)
    return split, traced.whole(folder, model.exits)


def differences(model: Any, entry: dict[str, Any], folder: Path, shapes: Sequence[Shape]) -> list[float]:
    files = chains(entry, folder)
    return [one.largest for shape in shapes for one in check(model, model.exits, files, shape)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, dict[str, Any], dict[str, Any]]:
    """A model with a gate that looks back, and both forms of it for all sizes."""
    folder = tmp_path_factory.mktemp("export")
    model = model_of("variant=proscale")
    look_back(model)
    return model, folder, *written(model, ANY, folder, gated=True)


def test_every_exit_is_that_of_torch(made: Any) -> None:
    """In both forms, for one image and for several, in sizes other than the one of tracing."""
    model, folder, *entries = made
    shapes = [Shape((64, 96), 1), Shape((128, 64), 4), Shape((32, 32), 2)]
    for entry in entries:
        found = differences(model, entry, folder, shapes)
        assert len(found) == len(shapes) * len(model.exits)
        assert max(found) < CLOSE


def test_a_gate_that_looks_back_scores_as_in_torch(made: Any) -> None:
    """After the layers that all images run; the whole form has its scores too."""
    model, folder, split, whole = made
    for entry in (split, whole):
        for one in check(model, model.exits, chains(entry, folder), Shape((96, 64), 3), gated=True):
            assert one.scores is not None
            assert one.scores < CLOSE
    with torch.no_grad():
        by_image = scores_of(model, noise(3, (96, 64)))
    assert by_image.std(0).min() > 100 * CLOSE  # it tells images apart


def test_files_say_nothing_of_the_machine_that_wrote_them(made: Any) -> None:
    """No names or paths of source files, which torch notes at every operator."""
    _, folder, split, whole = made
    for name in (split["trunk"], *split["tails"].values(), *whole["exits"].values()):
        content = (folder / name).read_bytes()
        assert b".py" not in content
        assert str(ROOT).encode() not in content


def test_operators_are_standard_ones(made: Any) -> None:
    """No operator of anyone's own, and no GridSample, which some runtimes get wrong."""
    _, folder, split, whole = made
    for name in (split["trunk"], *split["tails"].values(), *whole["exits"].values()):
        model = onnx.load(folder / name, load_external_data=False)
        onnx.checker.check_model(str(folder / name))
        assert {node.domain for node in model.graph.node} == {""}
        assert "GridSample" not in Counter(node.op_type for node in model.graph.node)


def test_weights_stand_once(made: Any) -> None:
    """Tails point to the same places; nothing large is in their own files, nor twice in the file of weights."""
    _, folder, split, _ = made
    places: dict[str, set[tuple[str, str]]] = {}
    for name in split["tails"].values():
        for tensor in onnx.load(folder / name, load_external_data=False).graph.initializer:
            where = {entry.key: entry.value for entry in tensor.external_data}
            assert where or len(tensor.raw_data) < 1024
            if where:
                assert where["location"] == "weights.bin"
                places.setdefault(name, set()).add((where["offset"], where["length"]))
    one, other = places.values()
    assert one < other  # the deeper tail has further layers
    everything = (folder / "weights.bin").read_bytes()
    contents = [everything[int(offset) :][: int(length)] for offset, length in one | other]
    assert len(set(contents)) == len(contents)


def test_inputs_and_outputs_have_the_names_of_the_manifest(made: Any) -> None:
    """Those by which the program that runs them asks."""
    _, folder, split, whole = made
    trunk, tail, alone = (Session(folder / name) for name in (split["trunk"], split["tails"]["1"], whole["exits"]["1"]))
    assert trunk.names == [*LEVELS, "skip", "scores"]
    assert [one.name for one in tail.session.get_inputs()] == [*LEVELS, "skip"]
    assert tail.names == ["class_logits", "mask_logits"]
    assert alone.names == ["class_logits", "mask_logits", "scores"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_the_encoder_exports(variant: str, tmp_path: Path) -> None:
    """Its tail, from the projected levels; variants of a fixed structure have one exit."""
    exit_ = 1 if variant in ("fpn", "hybrid") else 3
    model, shape = model_of(f"variant={variant}", exits=[exit_]), Shape((64, 96), 2)
    parts = parts_of(model, [exit_], gated=False)
    with torch.no_grad():
        tensors = dict(zip(parts.trunk.outputs, parts.trunk.module(shape.images()), strict=True))
        values = {name: one.numpy() for name, one in tensors.items()}
        expected = model(shape.images(), last_only=True)[exit_][0]
    tail = Traced(parts, shape, silent, tensors=tensors).graph(parts.tail(exit_), (*LEVELS, "skip"), ANSWERS)
    (tmp_path / "tail.onnx").write_bytes(tail.SerializeToString())
    found = Session(tmp_path / "tail.onnx")(**values)
    for name, one in zip(ANSWERS, expected, strict=True):
        np.testing.assert_allclose(found[name], one.numpy(), atol=CLOSE)


def test_a_gate_sees_no_exit_before_it_looks() -> None:
    """Such an exit has no place in the graphs."""
    model = model_of("variant=proscale")
    look_back(model)
    model.gate.after = 2
    with pytest.raises(ValueError, match="expected no exit before that"):
        parts_of(model, model.exits, gated=True)


def test_what_differs_is_refused() -> None:
    """Whatever the other exits are; a difference that is no number is one too."""
    fine = Check(1, (64, 64), 1, 1e-6, 1e-5)
    refuse_wrong([fine], "float32")
    for wrong in (0.002, float("nan")):
        with pytest.raises(ValueError, match="exit 2 differs from torch"):
            refuse_wrong([fine, Check(2, (64, 64), 1, 0.0, wrong)], "float32")
