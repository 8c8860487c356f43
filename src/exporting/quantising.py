"""Float graphs to int8: products with weights take rounded numbers, everything else stays float.

Convolutions and matrix products get QuantizeLinear and DequantizeLinear around them (the QDQ form, which runtimes turn
into integer products): weights in int8 with a scale for each output channel, their inputs in uint8 with the range
that calibration saw. onnxruntime's own tool would round a tensor for all its readers; here those that stay float read
it as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from src.exporting.weights_of_products import WEIGHTS

Ranges = Mapping[str, tuple[float, float]]  # smallest and largest number of a tensor

# What stays float, by a part of the names of its weights. Norms, softmax, sums and products of activations (attention,
# queries with mask features) have no weights to round, and stay float, too. So do convolutions that sum over FEW
# channels, see there.
KEPT = {
    "sampling_offsets": "places of samples in pixels: rounded, all of them move",
    "attention_weights": "logits of the softmax over samples",
    "class_embed": "the class head: small, and its logits are the answer",
    "mask_embed": "kernels of the masks, whose sign at each pixel decides",
    "mask_features": "the other side of the product that gives the masks",
    "gate": "scores are compared with prices of a thousandth",
}
# Channels that a convolution sums over. One of so few (the first, which reads RGB; depthwise ones) has next to no
# weights, and errors do not average out: on an EfficientNet-Lite0, two thirds of the changed pixels were due to these.
FEW = 3
LARGEST_WEIGHT = 64  # of 127: a sum of two products then fits the 16 bits of CPUs without VNNI
ACTIVATIONS = ("Relu", "Clip")  # which runtimes compute inside of the convolution before them
CHANNELS = {"Conv": 0, "MatMul": 1}  # axis of a weight's output channels, by operator


class Product(NamedTuple):
    """A node to compute with rounded numbers."""

    node: Any
    taken: str  # the tensor that it multiplies with its weights
    given: str | None  # the tensor of its answers, after an activation, that is rounded, too; None: it stays float


def products(model: Any, kept: Sequence[str] = tuple(KEPT)) -> Iterator[Product]:
    """The nodes of a graph (a proto) that get rounded numbers."""
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    readers = readers_of(model)
    for node in model.graph.node:
        if node.op_type not in CHANNELS or node.input[1] not in shapes or stays_float(node, kept):
            continue
        if node.op_type == "Conv" and shapes[node.input[1]][1] <= FEW:
            continue
        given = None
        if node.op_type == "Conv":  # an integer convolution gives integers
            given, after = node.output[0], readers.get(node.output[0], [])
            if len(after) == 1 and after[0].op_type in ACTIVATIONS:
                given = after[0].output[0]
        yield Product(node, node.input[0], given)


def stays_float(node: Any, kept: Sequence[str] = tuple(KEPT)) -> bool:
    """Whether a node's weights are among those that are kept, or are unknown."""
    names = [entry.value for entry in node.metadata_props if entry.key == WEIGHTS]
    return not names or any(one in name.split(".") for one in kept for name in names)


def readers_of(model: Any) -> dict[str, list[Any]]:
    """The nodes that read each tensor."""
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def watched(model: Any, kept: Sequence[str] = tuple(KEPT)) -> list[str]:
    """The tensors of a graph whose ranges `quantised` needs."""
    names = (name for one in products(model, kept) for name in (one.taken, one.given) if name)
    return list(dict.fromkeys(names))


def quantised(model: Any, ranges: Ranges, kept: Sequence[str] = tuple(KEPT)) -> Any:
    """A graph (a proto) with rounded products; `ranges` of all tensors that are `watched`."""
    return Quantised(model, ranges, kept).model


class Quantised:
    """A graph while its nodes are copied, with others that round between them."""

    def __init__(self, model: Any, ranges: Ranges, kept: Sequence[str]):
        import onnx

        self.helper, self.arrays = onnx.helper, onnx.numpy_helper
        self.source = model
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        del self.graph.node[:], self.graph.initializer[:]
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.made: set[str] = set()  # names of constants
        self.scales = {name: scale_of(*limits) for name, limits in ranges.items()}
        self.rounded: dict[str, str] = {}  # the rounded form of a tensor, once it is there
        wanted = {one.node.output[0]: one for one in products(model, kept)}
        everywhere = {one.given for one in wanted.values() if one.given}
        for node in model.graph.node:
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            del copied.metadata_props[:]  # names of weights, which nobody needs any more
            copied.input[:] = [self.rounded[name] if name in everywhere else name for name in node.input]
            if node.output[0] in wanted:
                self.take_rounded(copied, wanted[node.output[0]])
            self.graph.node.append(copied)
            for name in everywhere.intersection(node.output):
                self.round(name)
        used = {name for node in self.graph.node for name in node.input}
        self.graph.initializer.extend(tensor for name, tensor in self.weights.items() if name in used)

    def take_rounded(self, node: Any, one: Product) -> None:
        """Let a node read rounded numbers; what makes them is added to the graph."""
        node.input[0] = self.round(one.taken)
        bias = self.weights.get(node.input[2]) if len(node.input) > 2 else None
        scale = self.weight(node, one, bias)
        if bias is not None:  # in int32, as sums of products are
            steps = self.arrays.to_array(bias).astype(np.float64) / scale
            node.input[2] = self.restored(
                f"{node.output[0]}/bias", np.round(steps).astype(np.int32), scale.astype(np.float32), 0
            )

    def weight(self, node: Any, one: Product, bias: Any) -> np.ndarray:
        """Give a node its weights in int8. Returns the scale of its sums for each output channel."""
        axis, values = CHANNELS[node.op_type], self.arrays.to_array(self.weights[node.input[1]])
        largest = np.abs(values).max(tuple(other for other in range(values.ndim) if other != axis)).astype(np.float64)
        scale, taken = np.maximum(largest, 1e-30) / LARGEST_WEIGHT, float(self.scales[one.taken][0])
        if bias is not None:  # large beside its weights, it needs more than int32 has
            scale = np.maximum(scale, np.abs(self.arrays.to_array(bias)) / (taken * 2**30))
        scale = np.maximum(scale, np.finfo(np.float32).tiny / min(taken, 1.0)).astype(np.float32)
        shape = [-1 if other == axis else 1 for other in range(values.ndim)]
        steps = np.round(values / scale.reshape(shape)).astype(np.int8)
        node.input[1] = self.restored(f"{node.output[0]}/weight", steps, scale, axis)
        return scale.astype(np.float64) * taken

    def round(self, name: str) -> str:
        """The name of the rounded form of a tensor, which is added if it is not there yet."""
        if name not in self.rounded:
            step, nothing = self.scales[name]
            scale, zero = self.constant(f"{name}/scale", step), self.constant(f"{name}/zero", nothing)
            steps, self.rounded[name] = f"{name}/steps", f"{name}/rounded"
            make = self.helper.make_node
            self.graph.node.append(make("QuantizeLinear", [name, scale, zero], [steps], steps))
            self.graph.node.append(make("DequantizeLinear", [steps, scale, zero], [self.rounded[name]], f"{name}/back"))
        return self.rounded[name]

    def restored(self, name: str, steps: np.ndarray, scale: np.ndarray, axis: int) -> str:
        """The name of constants in float that are stored as integers."""
        inputs = [self.constant(f"{name}/{what}", value) for what, value in (("steps", steps), ("scale", scale))]
        self.graph.node.append(self.helper.make_node("DequantizeLinear", inputs, [name], f"{name}/back", axis=axis))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        if name not in self.made:
            self.made.add(name)
            self.graph.initializer.append(self.arrays.from_array(value, name))
        return name


def scale_of(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The scale (float32) and the zero (uint8) of numbers in a range, which is widened to contain 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, 1e-12)
    return np.array(scale, np.float32), np.array(round(-low / scale), np.uint8)
