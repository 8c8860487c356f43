"""The images that decide the ranges of rounded numbers, and these ranges.

Letters: B images, H x W their pixels.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.exporting.quantising import quantised, watched
from src.exporting.session import Session
from src.exporting.tracing import Shape

TRUNK = "trunk"  # the graph whose outputs the others take


class Shown(NamedTuple):
    """An image as graphs take it."""

    images: Tensor  # normalised, (B, 3, H, W), all the same
    size: tuple[int, int]  # (height, width) of the image in it; the rest is padding


class Calibration:
    """Photos, resized and normalised as for a prediction.

    Args:
        photos: gives (where from, image (3, h, w) uint8 RGB) each time it is iterated over; `broken` then lists the
            files that could not be read.

    Raises ValueError for a file that cannot be read.
    """

    def __init__(self, photos: Any):
        self.photos = photos
        self.number = sum(1 for _ in photos)
        if photos.broken:
            raise ValueError(f"calibration: {photos.broken[0]}; expected images that can be read")

    def shown(self, task: Any, shape: Shape) -> Iterator[Shown]:
        """The images for graphs of a shape; one that is too large for a fixed size is shrunk into it."""
        for _, photo in self.photos:
            resize, (height, width) = task.resizes[0], task.resizes[0].resized(*photo.shape[-2:])
            if shape.size is not None:
                factor = min(1.0, shape.size[0] / height, shape.size[1] / width)
                resize = resize if factor == 1 else resize.scaled(factor)
            image = resize.image(photo)
            if shape.size is not None:
                image = image[:, : shape.size[0], : shape.size[1]]  # sides were rounded
            images = task.model.preprocess([image])
            if shape.size is not None:
                images = F.pad(images, (0, shape.size[1] - images.shape[-1], 0, shape.size[0] - images.shape[-2]))
            yield Shown(images.expand(shape.batch or 1, -1, -1, -1), (image.shape[-2], image.shape[-1]))

    def quantise(self, graphs: Mapping[str, Any], task: Any, shape: Shape) -> dict[str, Any]:
        """Graphs (protos) by name in int8; those beside the trunk take its outputs, in float."""
        watches = {name: Watch(graph) for name, graph in graphs.items()}
        for images, _ in self.shown(task, shape):
            values = {"images": images.numpy()}
            if TRUNK in watches:
                values |= watches[TRUNK](values)
            for name, watch in watches.items():
                if name != TRUNK:
                    watch(values)
        return {name: quantised(graph, watches[name].ranges) for name, graph in graphs.items()}


class Watch:
    """A graph in onnxruntime that notes the smallest and the largest number of some tensors."""

    def __init__(self, graph: Any):
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(graph)
        self.outputs = [value.name for value in model.graph.output]
        self.names, self.ranges = watched(model), dict[str, tuple[float, float]]()
        for name in self.names:
            for kind in ("ReduceMin", "ReduceMax"):
                model.graph.node.add(op_type=kind, name=f"{name}/{kind}", input=[name], output=[f"{name}/{kind}"])
                model.graph.node[-1].attribute.append(onnx.helper.make_attribute("keepdims", 0))
                model.graph.output.append(
                    onnx.helper.make_tensor_value_info(f"{name}/{kind}", onnx.TensorProto.FLOAT, [])
                )
        self.session = Session(model.SerializeToString())

    def __call__(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of the graph for inputs by name."""
        given = self.session(**values)
        for name in self.names:
            low, high = (float(given[f"{name}/{kind}"]) for kind in ("ReduceMin", "ReduceMax"))
            before = self.ranges.get(name, (0.0, 0.0))
            self.ranges[name] = (min(before[0], low), max(before[1], high))
        return {name: given[name] for name in self.outputs}


def strongest(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """The class (B, h, w) whose sum over queries of class score x mask probability is largest, at each pixel."""
    scores = class_logits.softmax(-1)[..., :-1]
    return torch.einsum("bqk, bqhw -> bkhw", scores, mask_logits.sigmoid()).argmax(1)
