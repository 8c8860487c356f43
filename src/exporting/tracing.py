"""From a part of a model to an ONNX graph, by torch.export: of one image size, or of all multiples of 32.

Letters: B images, C channels, h x w the pixels of a level.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim

from src.exporting.graphs import STRIDES, Part
from src.exporting.weights_of_products import OF_WEIGHTS, prepare

OPSET = 18
DIVISOR = 32
TRIED = (96, 160)  # height and width of the images that a graph for all sizes is traced with
GIVEN = "_given"  # after the name of an output, since a part may take and give tensors of one name
MOST = 1024  # times 32 pixels a side, and images of a batch
GROWING = ("ConstantOfShape", "Expand", "Range", "Tile")  # which would store what is quickly computed


class Shape(NamedTuple):
    """What a graph takes."""

    size: tuple[int, int] | None  # (height, width) of images; None: all multiples of 32
    batch: int | None  # images; None: any number

    def images(self) -> Tensor:
        """Images (B, 3, H, W) to trace with. Two of them where there may be any: torch takes 1 for a constant."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch or 2, 3, *(self.size or TRIED), generator=generator)

    def dims(self, names: Sequence[str]) -> list[dict[int, Any]]:
        """The sizes that may vary, for each of some tensors by axis."""
        batch = Dim("batch", min=1, max=MOST)
        rows, columns = (Dim(name, min=1, max=MOST) for name in ("rows", "columns"))  # of the level of stride 32
        every: list[dict[int, Any]] = []
        for name in names:
            varies: dict[int, Any] = {}
            first = 1 if name.startswith("position") else 2  # the axis of the height
            if self.batch is None and first == 2:
                varies[0] = batch
            if self.size is None:
                times = DIVISOR // STRIDES[name]
                varies |= {first + axis: times * dim if times > 1 else dim for axis, dim in enumerate((rows, columns))}
            every.append(varies)
        return every


def trace(part: Part, tensors: Mapping[str, Tensor], shape: Shape, precision: str = "float32") -> Any:
    """The ONNX model (a proto) of a part for inputs like these tensors, its inputs named as the part names them, its
    outputs with `GIVEN` after their names.

    With float16, products and convolutions are in half precision, and what follows them as under torch's autocast on a
    CPU; places of samples, their weights, and what goes in and out stay in float32. With int8, the graph computes in
    float32, and its weights are ready for `quantising`.

    Raises ValueError for a part that torch cannot export for all sizes.
    """
    from onnxscript import optimizer

    half, folded = precision == "float16", precision != "float32"
    arguments = tuple(tensors[name] for name in part.inputs)
    try:
        with torch.no_grad(), quiet(), torch.autocast("cpu", torch.float16, enabled=half, cache_enabled=False):
            program = torch.export.export(
                InFloat(part.module), arguments, dynamic_shapes=(tuple(shape.dims(part.inputs)),), strict=False
            )
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(part.inputs),
                output_names=[name + GIVEN for name in part.outputs],
                optimize=False,  # half of the time goes into patterns that runtimes look for themselves
                verbose=False,
            )
            optimizer.inline(made.model)
            if precision == "int8":
                optimizer.fold_constants(made.model, should_fold=lambda node: False)  # makes splits of sequences
                prepare(made.model)
            optimizer.fold_constants(made.model, **(WEIGHTS_TOO if folded else {}))
            optimizer.remove_unused_nodes(made.model)
    except (torch._dynamo.exc.UserError, torch.fx.experimental.symbolic_shapes.ConstraintViolationError) as error:
        varies, fixed = ("sizes=null", "sizes=[[512,672]]") if shape.size is None else ("batch=null", "batch=1")
        raise ValueError(
            f"{varies}: torch cannot export the {part.name} of this model for all of them "
            f"({str(error).strip().splitlines()[0]}); expected fixed ones, for example {fixed}"
        ) from error
    return made.model_proto


def computes_weights(node: Any) -> bool | None:
    """Whether a node computes a weight from weights, such as its half precision; None: it may, by its size."""
    constant = all(value is None or value.const_value is not None for value in node.inputs)
    return True if node.op_type in OF_WEIGHTS and constant else False if node.op_type in GROWING else None


WEIGHTS_TOO: dict[str, Any] = {"output_size_limit": 2**31, "should_fold": computes_weights}


class InFloat(nn.Module):
    """A module whose outputs are float32."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """As the module."""
        return tuple(one.float() for one in self.module(*tensors))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own progress."""
    log = logging.getLogger("onnxscript")
    before = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    log.setLevel(before)
