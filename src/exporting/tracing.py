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
from torch import Tensor
from torch.export import Dim

from src.exporting.graphs import STRIDES, Part

OPSET = 18
DIVISOR = 32
TRIED = (96, 160)  # height and width of the images that a graph for all sizes is traced with
GIVEN = "_given"  # after the name of an output, since a part may take and give tensors of one name
MOST = 1024  # times 32 pixels a side, and images of a batch


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
                varies |= (
                    {first: times * rows, first + 1: times * columns}
                    if times > 1
                    else {first: rows, first + 1: columns}
                )
            every.append(varies)
        return every


def trace(part: Part, tensors: Mapping[str, Tensor], shape: Shape) -> Any:
    """The ONNX model (a proto) of a part for inputs like these tensors, its inputs named as the part names them, its
    outputs with `GIVEN` after their names.

    Raises ValueError for a part that torch cannot export for all sizes.
    """
    arguments = tuple(tensors[name] for name in part.inputs)
    dims = shape.dims(part.inputs)
    try:
        with torch.no_grad(), quiet():
            # a module's `forward` takes *tensors or the images
            dynamic: Any = (tuple(dims),) if len(part.inputs) > 1 else tuple(dims)
            program = torch.export.export(part.module, arguments, dynamic_shapes=dynamic, strict=False)
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(part.inputs),
                output_names=[name + GIVEN for name in part.outputs],
                verbose=False,
            )
    except (torch._dynamo.exc.UserError, torch.fx.experimental.symbolic_shapes.ConstraintViolationError) as error:
        raise ValueError(
            f"sizes=null: torch cannot export the {part.name} of this model for all sizes "
            f"({str(error).strip().splitlines()[0]}); expected a list, for example sizes=[[512,672]]"
        ) from error
    return made.model_proto


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
