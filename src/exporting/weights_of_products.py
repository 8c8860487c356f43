"""Brings the weights of products into one constant each, under their names, so that they can be rounded.

Works on a graph in the exporter's own form (onnx_ir), before its constants are folded.
"""

from typing import Any

import numpy as np

# Operators that compute weights from weights.
OF_WEIGHTS = (
    *("Add", "Cast", "Mul", "Reciprocal", "Reshape", "Slice"),
    *("Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
)
MULTIPLYING = ("Conv", "Gemm", "MatMul")
WEIGHTS = "weights"  # key of the names of a node's weights in its metadata


def prepare(model: Any) -> None:
    """Split weights that are stored as one, name those of each product, and multiply norms into convolutions."""
    split_weights(model.graph)
    for node in model.graph:
        if node.op_type in MULTIPLYING and (name := name_of(node.inputs[1])):
            node.metadata_props[WEIGHTS] = name
    multiply_norms(model.graph)


def name_of(value: Any) -> str | None:
    """The name of the weights that a value is computed from; None if it is computed from something else."""
    if value.is_initializer():
        return value.name  # type: ignore[no-any-return]
    node = value.producer()
    if node is None or node.op_type not in OF_WEIGHTS or node.inputs[0] is None:
        return None
    return name_of(node.inputs[0])


def split_weights(graph: Any) -> None:
    """Each part of a weight becomes a weight (of query, key and value)."""
    for node in list(graph):
        if node.op_type != "Split" or not node.inputs[0].is_initializer():
            continue
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        ends = ends_of(node, node.inputs[0].shape[axis])
        if ends is None:
            continue
        parts = np.split(array_of(node.inputs[0]), ends, axis)
        for number, (value, part) in enumerate(zip(node.outputs, parts, strict=True)):
            value.replace_all_uses_with(weight(graph, f"{node.inputs[0].name}.{number}", part))
        graph.remove(node, safe=True)


def ends_of(node: Any, length: int) -> Any:
    """Where the parts of a split end, without the last; None if that is not known."""
    from onnx_ir import convenience

    if len(node.inputs) < 2 or node.inputs[1] is None:
        step = -(-length // len(node.outputs))
        return step * np.arange(1, len(node.outputs))
    sizes = convenience.get_const_tensor(node.inputs[1])
    return None if sizes is None else np.cumsum(sizes.numpy())[:-1]


def multiply_norms(graph: Any) -> None:
    """A batch norm after a convolution becomes part of the convolution."""
    for norm in list(graph):
        conv = norm.inputs[0].producer() if norm.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or len(conv.outputs[0].uses()) > 1:
            continue
        constants = [*norm.inputs[1:], *conv.inputs[1:]]
        if not all(value is not None and value.is_initializer() for value in constants):
            continue
        gain, shift, mean, variance = (array_of(value).astype(np.float64) for value in norm.inputs[1:])
        epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
        factor = gain / np.sqrt(variance + epsilon)
        kernel = array_of(conv.inputs[1])
        bias = array_of(conv.inputs[2]) if len(conv.inputs) > 2 else np.zeros_like(mean)
        name, axes = conv.inputs[1].name, (-1, *[1] * (kernel.ndim - 1))
        conv.resize_inputs(3)
        conv.replace_input_with(1, weight(graph, f"{name}.normed", kernel * factor.reshape(axes)))
        conv.replace_input_with(2, weight(graph, f"{name}.bias", shift + (bias - mean) * factor))
        norm.outputs[0].replace_all_uses_with(conv.outputs[0], replace_graph_outputs=True)
        graph.remove(norm, safe=True)


def array_of(value: Any) -> np.ndarray:
    return np.asarray(value.const_value.numpy())


def weight(graph: Any, name: str, array: np.ndarray) -> Any:
    """A new weight of a graph, float32. One of that name which is there already is taken for it."""
    import onnx_ir

    if name not in graph.initializers:
        tensor = onnx_ir.tensor(np.ascontiguousarray(array, np.float32), name=name)
        graph.register_initializer(
            onnx_ir.Value(
                name=name,
                shape=onnx_ir.Shape(array.shape),
                type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT),
                const_value=tensor,
            )
        )
    return graph.initializers[name]
