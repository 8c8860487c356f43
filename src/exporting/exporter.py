"""A trained model to a folder of ONNX files, a manifest and a model card.

Letters: B images, H x W their pixels.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.exporting.calibration import TRUNK, Calibration
from src.exporting.checking import TOLERANCE, Check, check, compare, refuse_wrong
from src.exporting.folder import check_target, listed, replacing
from src.exporting.graphs import ANSWERS, LEVELS, Part, Parts, parts_of
from src.exporting.joining import joined
from src.exporting.manifest import MANIFEST, Manifest
from src.exporting.model_card import model_card
from src.exporting.onnx_files import WeightsFile, write_complete
from src.exporting.tracing import Shape, trace
from src.models.backbone_layers import PadFirstBlock
from src.models.tracing import CAN_EXPORT
from src.system.atomic import write_json, write_text

RUNTIME = Path(__file__).with_name("runtime.py")
Say = Callable[[str], None]
Graphs = Iterable[tuple[str, Any]]  # names and protos


class Made(NamedTuple):
    """What an export wrote."""

    folder: Path
    files: dict[str, int]  # bytes by name
    checks: list[Check]
    seconds: float


class Exporter:
    """Exports the model of a prediction task.

    Args:
        out: the folder; an export that is there already is replaced once the new one is complete.
        form: split, a trunk and a tail for each exit with shared weights; whole, a file for each exit; null: split
            where there are several exits.
        sizes: (height, width) of the images, one set of files each; null: files for all multiples of 32.
        batch: number of images; null: any.
        precision: float32, float16 or int8 inside; inputs and outputs are float32.
        calibration: photos for int8, see `Calibration`; null for others.
        licence: of the weights, for the model card; null: that of published weights, else "not stated".
        gate, beta: of the task; the manifest gets what other values of beta come to.
        image_size: (height, width) at which costs are counted where files take all sizes.

    Raises ValueError for a model or a setting that cannot be exported, and for a graph that differs from torch.
    """

    def __init__(
        self,
        out: str | None,
        name: str,
        form: str | None = None,
        sizes: Sequence[Sequence[int]] | None = None,
        batch: int | None = None,
        precision: str = "float32",
        licence: str | None = None,
        gate: str | None = None,
        beta: float | None = None,
        image_size: Sequence[int] = (800, 1216),
        calibration: Any = None,
    ):
        if out is None:
            raise ValueError("out=null: expected out=FOLDER, which gets the exported files")
        if precision not in TOLERANCE:
            raise ValueError(f"precision={precision}: expected {' or '.join(TOLERANCE)}")
        if isinstance(sizes, str):
            raise ValueError(f"sizes={sizes}: expected a list of [height, width], or null for all")
        self.folder, self.name, self.form, self.batch, self.precision = Path(out), name, form, batch, precision
        self.sizes: list[tuple[int, int]] = [] if sizes is None else [(height, width) for height, width in sizes]
        self.licence, self.gate, self.beta, self.image_size = licence, gate, beta, tuple(image_size)
        if not CAN_EXPORT:
            raise ValueError(f"torch {torch.__version__}: cannot export these models, expected 2.7 or later")
        if (calibration is not None) != (precision == "int8"):
            raise ValueError(
                f"precision={precision} calibration={'null' if calibration is None else 'given'}: expected "
                "calibration=FOLDER, a photo or a pattern, with precision=int8, and with no other"
            )
        self.calibration = None if calibration is None else Calibration(calibration)
        check_target(self.folder)

    def __call__(self, task: Any, source: str, say: Say = print) -> Made:
        """Export the model of a task, whose weights `source` names. `say` gets progress."""
        start, model, exits = time.perf_counter(), task.model.eval(), list(task.model.exits)
        if task.budget is not None and not task.gated:
            raise ValueError(
                f"{task.budget.setting}={task.budget.limit:g}: expected gate=FILE, whose price it decides; without a "
                "gate, runtime.py takes a budget when it runs"
            )
        if not self.sizes and any(isinstance(module, PadFirstBlock) for module in model.modules()):
            raise ValueError(
                "sizes=null: a Swin pads its windows by the size of the image, which torch cannot trace for all sizes; "
                "expected fixed ones, for example sizes=[[512,672]]"
            )
        form = self.form or ("split" if len(exits) > 1 else "whole")
        shapes = [Shape(size, self.batch) for size in self.padded(model)] or [Shape(None, self.batch)]
        with replacing(self.folder) as folder:
            parts, graphs, checks = parts_of(model, exits, task.gated), [], []
            with WeightsFile(folder / "weights.bin") as weights:
                for shape in shapes:
                    traced = Traced(parts, shape, say, self.precision)
                    change = partial(self.quantised, task=task, shape=shape, say=say)
                    graphs.append(
                        traced.split(folder, weights, exits, change)
                        if form == "split"
                        else traced.whole(folder, exits, change)
                    )
            for shape, graph in zip(shapes, graphs, strict=True):
                say(f"checking {describe(shape)} in onnxruntime")
                if self.calibration is None:
                    checks += check(model, exits, chains(graph, folder), shape, task.gated)
                else:
                    shown = self.calibration.shown(task, shape)
                    checks += compare(model, exits, chains(graph, folder), shown, task.gated)
            refuse_wrong(checks, self.precision)
            manifest = Manifest(
                task,
                self.name,
                form,
                self.precision,
                graphs,
                checks,
                source,
                self.licence,
                self.gate,
                self.beta,
                self.image_size,
            )
            shutil.copyfile(RUNTIME, folder / RUNTIME.name)
            content = manifest.content()
            write_text(model_card(content), folder / "README.md")
            write_json(content | {"files": listed(folder)}, folder / MANIFEST)
        sizes = {file.name: file.stat().st_size for file in sorted(self.folder.iterdir())}
        return Made(self.folder, sizes, checks, time.perf_counter() - start)

    def quantised(self, graphs: Graphs, task: Any, shape: Shape, say: Say) -> Graphs:
        """Graphs in int8 if there are images for it, else as they are."""
        if self.calibration is None:
            return graphs
        say(f"calibrating {describe(shape)} on {self.calibration.number} images")
        return self.calibration.quantise(dict(graphs), task, shape).items()

    def padded(self, model: Any) -> list[tuple[int, int]]:
        """The sizes of images. Raises ValueError for one that the model would pad."""
        for size in self.sizes:
            if tuple(model.padded(size)) != size:
                raise ValueError(
                    f"sizes: {list(size)}: expected multiples of {model.divisor}, such as {list(model.padded(size))}"
                )
        return self.sizes


class Traced:
    """The parts of a model as ONNX graphs for one shape, and the files that they make.

    Args:
        tensors: what the trunk gives, if it is not to be traced; null: it is.
    """

    def __init__(
        self,
        parts: Parts,
        shape: Shape,
        say: Say,
        precision: str = "float32",
        tensors: Mapping[str, Tensor] | None = None,
    ):
        self.parts, self.shape = parts, shape
        self.made: dict[str, Any] = {}  # graphs by part
        every = [parts.trunk] * (tensors is None) + [parts.positions, *parts.layers.values(), parts.head]
        known = {"images": shape.images()} if tensors is None else dict(tensors)
        for number, part in enumerate(every, 1):
            say(f"tracing {part.name.replace('_', ' ')} for {describe(shape)}, {number} of {len(every)}")
            self.made[part.name] = trace(part, known, shape, precision)
            with torch.no_grad():
                known |= dict(zip(part.outputs, part.module(*(known[name] for name in part.inputs)), strict=True))

    def graph(self, parts: Sequence[Part], inputs: Sequence[str], outputs: Sequence[str]) -> Any:
        return joined([(part.name, self.made[part.name]) for part in parts], inputs, outputs)

    def split(
        self, folder: Path, weights: WeightsFile, exits: Sequence[int], change: Callable[[Graphs], Graphs] = iter
    ) -> dict[str, Any]:
        """Write a trunk and tails, after a `change`. Returns their entry in the manifest."""
        trunk, files = self.parts.trunk, {TRUNK: f"trunk{self.ending}.onnx"}
        files |= {str(exit_): f"tail_{exit_}{self.ending}.onnx" for exit_ in exits}
        graphs = {TRUNK: ([trunk], trunk.inputs, trunk.outputs)}
        graphs |= {str(exit_): (self.parts.tail(exit_), (*LEVELS, "skip"), ANSWERS) for exit_ in exits}
        for key, model in change((key, self.graph(*graph)) for key, graph in graphs.items()):
            weights.take(model)
            (folder / files[key]).write_bytes(model.SerializeToString())
        return self.entry | {"trunk": files.pop(TRUNK), "tails": files}

    def whole(self, folder: Path, exits: Sequence[int], change: Callable[[Graphs], Graphs] = iter) -> dict[str, Any]:
        """Write a complete file for each exit, after a `change`. Returns their entry in the manifest."""
        files = {str(exit_): f"exit_{exit_}{self.ending}.onnx" for exit_ in exits}
        outputs = (*ANSWERS, *["scores"] * ("scores" in self.parts.trunk.outputs))
        graphs = {str(exit_): [self.parts.trunk, *self.parts.tail(exit_)] for exit_ in exits}
        for key, model in change((key, self.graph(parts, ("images",), outputs)) for key, parts in graphs.items()):
            write_complete(model, folder / files[key])
        return self.entry | {"exits": files}

    @property
    def ending(self) -> str:
        return "" if self.shape.size is None else "_{}x{}".format(*self.shape.size)

    @property
    def entry(self) -> dict[str, Any]:
        size = self.shape.size
        return {"size": None if size is None else list(size), "batch": self.shape.batch}


def chains(graph: dict[str, Any], folder: Path) -> dict[int, list[Path]]:
    """The files that run one after the other for each exit, of an entry of the manifest."""
    if "exits" in graph:
        return {int(exit_): [folder / file] for exit_, file in graph["exits"].items()}
    return {int(exit_): [folder / graph["trunk"], folder / file] for exit_, file in graph["tails"].items()}


def describe(shape: Shape) -> str:
    return "all sizes" if shape.size is None else "{}x{}".format(*shape.size)
