"""Graphs in int8: what is rounded, what is not, and what is stored."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from src.exporting.calibration import Watch
from src.exporting.onnx_files import WeightsFile
from src.exporting.quantising import KEPT, products, quantised, stays_float
from src.exporting.session import Session
from src.exporting.weights_of_products import WEIGHTS

generator = np.random.default_rng(0)
IMAGES = generator.normal(size=(2, 8, 6, 10)).astype(np.float32)
LINEAR, CONV = (generator.normal(size=shape).astype(np.float32) for shape in ((8, 16), (4, 8, 3, 3)))


def graph(kept: str = "sampling_offsets", linear: np.ndarray = LINEAR) -> Any:
    """Images (B, 8, H, W) to a convolution's answers, and to two products with the channels, of which one is kept."""
    make = helper.make_node
    nodes = [
        make("Conv", ["images", "conv", "bias"], ["convolved"], "a", pads=[1, 1, 1, 1]),
        make("Relu", ["convolved"], ["positive"], "b"),
        make("Identity", ["positive"], ["map"], "c"),
        make("Transpose", ["images"], ["channels"], "d", perm=[0, 2, 3, 1]),
        make("MatMul", ["channels", "linear"], ["rounded"], "e"),
        make("MatMul", ["channels", "other"], ["exact"], "f"),
    ]
    for place, name in ((0, "backbone.conv1.weight"), (4, "layers.0.linear1.weight"), (5, f"layers.0.{kept}.weight")):
        nodes[place].metadata_props.add(key=WEIGHTS, value=name)
    weights = {"conv": CONV, "bias": CONV[:, 0, 0, 0], "linear": linear, "other": LINEAR[:, ::-1].copy()}
    sizes = ["batch", 8, "height", "width"]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in ("map", "rounded", "exact")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def in_int8(model: Any) -> Any:
    """The graph, calibrated on the images."""
    watch = Watch(model)
    watch({"images": IMAGES})
    return quantised(model, watch.ranges)


def run(model: Any, folder: Path) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return Session(folder / "model.onnx")(images=IMAGES)


def test_rounded_answers_are_near_and_kept_ones_equal(tmp_path: Path) -> None:
    """For a graph of all sizes: within a few steps of the ranges, but not the same; what is kept, to the bit."""
    exact, rounded = run(graph(), tmp_path), run(in_int8(graph()), tmp_path)
    for name in ("map", "rounded"):
        apart = np.abs(exact[name] - rounded[name])
        assert 0 < apart.max() < 0.05 * np.abs(exact[name]).max()
        assert apart.mean() < 0.01 * np.abs(exact[name]).max()
    np.testing.assert_array_equal(exact["exact"], rounded["exact"])


@pytest.mark.parametrize("kept", KEPT)
def test_what_stays_float_reads_nothing_rounded(kept: str) -> None:
    """Though the product beside it reads the same tensor."""
    model = in_int8(graph(kept))
    nodes = {node.name: node for node in model.graph.node}
    assert nodes["f"].input == ["channels", "other"]
    makers = {nodes[name].op_type for name in ("e/steps",) if name in nodes} | {
        node.op_type for node in model.graph.node if set(node.output) & set(nodes["e"].input)
    }
    assert makers == {"DequantizeLinear"}


def test_a_name_is_kept_as_a_whole() -> None:
    """`gate` keeps a gate, but no `aggregate`; a product whose weights are unknown stays as it is."""
    node = graph("aggregate").graph.node[5]
    assert not stays_float(node)
    del node.metadata_props[:]
    assert stays_float(node)


@pytest.mark.parametrize(("channels", "rounded"), [(1, False), (3, False), (4, True)])
def test_convolutions_of_few_channels_stay_float(channels: int, rounded: bool) -> None:
    """A depthwise one, and one that reads RGB."""
    model = graph()
    (tensor,) = (one for one in model.graph.initializer if one.name == "conv")
    tensor.CopyFrom(numpy_helper.from_array(CONV[:, :channels].copy(), "conv"))
    assert ("convolved" in {one.node.output[0] for one in products(model)}) == rounded


def test_int8_weights_are_a_quarter_and_shared(tmp_path: Path) -> None:
    """Weights that two graphs share are stored once; others not."""
    weights = np.repeat(LINEAR, 16, 1)  # large enough for the file
    sizes = []
    for others in ([], [graph(linear=weights)], [graph(linear=-2 * weights + 1)]):
        with WeightsFile(tmp_path / "weights.bin") as file:
            for model in [graph(linear=weights), *others]:
                file.take(in_int8(model))
        sizes.append((tmp_path / "weights.bin").stat().st_size)
    assert weights.size <= sizes[0] == sizes[1] < 0.5 * weights.nbytes
    assert sizes[2] > 1.5 * sizes[0]


def test_a_bias_that_is_large_beside_its_weights_is_kept(tmp_path: Path) -> None:
    """Its channel's weights get a coarser scale, so that the bias fits into int32."""
    model = graph()
    conv, bias = CONV.copy(), CONV[:, 0, 0, 0].copy()
    conv[1], bias[1], conv[2], bias[2] = 1e-12, 3.0, 0.0, 0.0
    for name, value in (("conv", conv), ("bias", bias)):
        (tensor,) = (one for one in model.graph.initializer if one.name == name)
        tensor.CopyFrom(numpy_helper.from_array(value, name))
    rounded = run(in_int8(model), tmp_path)["map"]
    np.testing.assert_allclose(rounded[:, 1], 3.0, rtol=0.05)
    np.testing.assert_array_equal(rounded[:, 2], 0.0)
