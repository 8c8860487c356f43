"""Puts ONNX graphs one after the other: what one gives, the next takes by the same name."""

from collections.abc import Iterable, Sequence
from typing import Any

from src.exporting.tracing import GIVEN
from src.exporting.weights_of_products import WEIGHTS


def joined(parts: Iterable[tuple[str, Any]], inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """One ONNX model of several (name, model), which run in this order.

    An input of a part is the latest output of that name, or an input of the whole. Inner values and weights are called
    PART/NAME.
    """
    import onnx

    parts = list(parts)
    first = parts[0][1]
    whole = onnx.ModelProto(ir_version=first.ir_version, producer_name=first.producer_name)
    whole.opset_import.extend(first.opset_import)
    whole.graph.name = first.graph.name
    now: dict[str, str] = {}  # what each name stands for at present
    taken_first: dict[str, Any] = {}  # types and shapes of values, as the first part that takes them has them
    given_last: dict[str, Any] = {}  # as the last part that gives them has them
    for name, part in parts:
        graph = part.graph
        if part.functions or any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
            raise ValueError(f"{name}: the graph has functions or branches, which are not joined")
        for value in graph.input:
            taken_first.setdefault(value.name, value)
            now.setdefault(value.name, value.name)
        taken = {value.name: now[value.name] for value in graph.input}

        def called(value: str, taken: dict[str, str] = taken, name: str = name) -> str:
            return taken.get(value) or (value and f"{name}/{value}")

        for initializer in graph.initializer:
            added = bare(whole.graph.initializer.add(), initializer)
            added.name = called(initializer.name)
        for node in graph.node:
            added = bare(whole.graph.node.add(), node)
            added.name = f"{name}/{node.name}"
            added.input[:] = map(called, node.input)
            added.output[:] = map(called, node.output)
        for value in graph.output:
            plain = value.name.removesuffix(GIVEN)
            given_last[plain], now[plain] = value, called(value.name)
    for name in inputs:
        bare(whole.graph.input.add(), taken_first[name])
    for name in outputs:
        whole.graph.node.add(op_type="Identity", name=f"{name}/given", input=[now[name]], output=[name])
        bare(whole.graph.output.add(), given_last[name]).name = name
    return whole


def bare(copy: Any, original: Any) -> Any:
    """Make a copy of a part of a graph without notes: torch's have the lines and paths of the code that was traced.

    The names of weights that `weights_of_products` noted stay.
    """
    copy.CopyFrom(original)
    del copy.metadata_props[:]
    copy.metadata_props.extend(entry for entry in original.metadata_props if entry.key == WEIGHTS)
    copy.ClearField("doc_string")
    return copy
