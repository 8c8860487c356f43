"""Weights that are computed from others become constants of the products that read them."""

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from src.exporting.weights_of_products import WEIGHTS, prepare

generator = np.random.default_rng(0)
SHAPES = {"in.weight": (8, 12), "conv.weight": (6, 4, 3, 3)} | {f"norm.{name}": (6,) for name in ("w", "b", "mean")}


@pytest.mark.parametrize("sizes", [None, [4, 8]], ids=["equal", "given"])
def test_parts_and_norms(sizes: list[int] | None) -> None:
    """The same answers with one node less for each norm, no split, and the names of what was split and multiplied."""
    make = helper.make_node
    constant = make("Constant", [], ["sizes"], "sizes", value_ints=sizes or [6, 6])
    nodes = [
        *[constant] * (sizes is not None),
        make("Split", ["in.weight"], ["left", "right"], "split", axis=1, num_outputs=2)
        if sizes is None
        else make("Split", ["in.weight", "sizes"], ["left", "right"], "split", axis=1),
        make("MatMul", ["tokens", "right"], ["product"], "product"),
        make("Conv", ["images", "conv.weight"], ["convolved"], "conv"),
        make("BatchNormalization", ["convolved", "norm.w", "norm.b", "norm.mean", "norm.var"], ["map"], "norm"),
    ]
    weights = {name: generator.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    weights["norm.var"] = np.arange(1, 7, dtype=np.float32)
    inputs = {"tokens": (2, 8), "images": (1, 4, 5, 7)}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("product", "map")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = onnx_ir.serde.deserialize_model(plain)
    prepare(model)
    made = onnx_ir.serde.serialize_model(model)
    assert [node.op_type for node in made.graph.node if node.op_type != "Constant"] == ["MatMul", "Conv"]
    names = [entry.value for node in made.graph.node for entry in node.metadata_props if entry.key == WEIGHTS]
    assert names == ["in.weight.1", "conv.weight"]
    values = {name: generator.normal(size=shape).astype(np.float32) for name, shape in inputs.items()}
    for mine, theirs in zip(ReferenceEvaluator(made).run(None, values), answers(plain, values), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def answers(model: onnx.ModelProto, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(ReferenceEvaluator(model).run(None, values))
