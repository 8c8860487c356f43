"""A made export: graphs of a few operators with the inputs, outputs and manifest of a real one."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

EXITS, QUERIES, CLASSES = [1, 2, 3], 12, 4
LEVELS = {"level_32": 32, "level_16": 16, "level_8": 8, "skip": 4}


def write_export(
    folder: Path,
    form: str = "split",
    sizes: Sequence[tuple[int, int] | None] = (None,),
    batch: int | None = None,
    **changes: Any,
) -> Path:
    """Write an export whose answers depend on the photo and the exit; return its folder.

    Args:
        sizes: (height, width) of each set of graphs; None: any.
        batch: of the graphs; None: any.
        changes: other entries of the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graphs = []
    for size in sizes:
        end = "" if size is None else "_{}x{}".format(*size)
        shape = [batch or "B", 3, *(size or ("H", "W"))]
        entry: dict[str, Any] = {"size": size and list(size), "batch": batch}
        if form == "split":
            save(folder / f"trunk{end}.onnx", [*pools(), *gate()], {"images": shape}, [*LEVELS, "scores"])
            inside = {name: [batch or "B", 3, f"h{s}", f"w{s}"] for name, s in LEVELS.items()}
            for depth in EXITS:
                save(folder / f"tail_{depth}{end}.onnx", tail(depth), inside, ["class_logits", "mask_logits"])
            tails = {str(depth): f"tail_{depth}{end}.onnx" for depth in EXITS}
            graphs.append(entry | {"trunk": f"trunk{end}.onnx", "tails": tails})
        else:
            for depth in EXITS:
                nodes = [*pools(), *gate(), *tail(depth)]
                outputs = ["class_logits", "mask_logits", "scores"]
                save(folder / f"exit_{depth}{end}.onnx", nodes, {"images": shape}, outputs)
            graphs.append(entry | {"exits": {str(depth): f"exit_{depth}{end}.onnx" for depth in EXITS}})
    write_manifest(folder, manifest(form, graphs) | changes)
    return folder


def manifest(form: str, graphs: list[dict[str, Any]]) -> dict[str, Any]:
    shares = [[0, 0, 1], [0, 0.5, 0.5], [0.5, 0.5, 0], [1, 0, 0]]
    prices = [{"beta": p / 10, "price": p, "shares": s} for p, s in zip((0.0, 0.1, 0.2, 9.0), shares, strict=True)]
    names = ["cat", "sky", "dog", "sea"]
    return {
        "format": "ecoscale export",
        "version": 1,
        "name": "tiny",
        "form": form,
        "segmentation": "panoptic",
        "precision": "float32",
        "exits": EXITS,
        "default_exit": EXITS[-1],
        "graphs": graphs,
        "classes": [
            {"id": 10 + i, "name": name, "isthing": i % 2 == 0, "color": [60 * i, 90, 250 - 60 * i]}
            for i, name in enumerate(names)
        ],
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "divisor": 32,
        "resize": {"short": 64, "long": 128},
        "postprocess": {
            "object_threshold": 0.3,
            "overlap_threshold": 0.2,
            "num_instances": 20,
            "resize_last": False,
        },
        "gate": {"exits": EXITS, "beta": 0.01, "price": 0.1, "prices": prices},
        "costs": [
            {"size": [64, 64], "gflops": {"1": 1.0, "2": 2.0, "3": 3.0}},
            {"size": [64, 128], "gflops": {"1": 2.0, "2": 4.0, "3": 6.0}},
        ],
    }


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write a manifest with the length and hash of every graph in the folder."""
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in sorted(folder.glob("*.onnx"))
    }
    (folder / "manifest.json").write_text(json.dumps({"files": files} | content))


def pools() -> list[Any]:
    return [
        helper.make_node("AveragePool", ["images"], [name], kernel_shape=[s, s], strides=[s, s])
        for name, s in LEVELS.items()
    ]


def gate() -> list[Any]:
    """Scores (B, E) of the means of an image."""
    weight = constant("gate", random(0, 3, len(EXITS)))
    mean = helper.make_node("ReduceMean", ["level_32", "hw"], ["mean"], keepdims=0)
    return [constant("hw", np.array([2, 3])), weight, mean, helper.make_node("MatMul", ["mean", "gate"], ["scores"])]


def tail(depth: int) -> list[Any]:
    """Masks of the stride 4 map and classes of the stride 8 map, with weights that differ by depth."""
    shape = np.array([-1, QUERIES, CLASSES + 1])
    return [
        constant("kernels", 4 * random(depth, QUERIES, 3, 1, 1)),
        constant("classes", 6 * random(depth + 10, 3, QUERIES * (CLASSES + 1))),
        constant("bias", 2 * random(depth + 20, QUERIES * (CLASSES + 1))),
        constant("axes", np.array([2, 3])),
        constant("shape", shape),
        helper.make_node("Conv", ["skip", "kernels"], ["mask_logits"]),
        helper.make_node("ReduceMean", ["level_8", "axes"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "classes"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["class_logits"]),
    ]


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def constant(name: str, value: np.ndarray) -> Any:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def save(file: Path, nodes: list[Any], inputs: dict[str, list[Any]], outputs: list[str]) -> None:
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, file.stem, made, given)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
