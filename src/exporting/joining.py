"""Puts ONNX graphs one after the other: what one gives, the next takes by the same name."""

from collections.abc import Iterable, Sequence
from typing import Any

from src.exporting.tracing import GIVEN


def joined(parts: Iterable[tuple[str, Any]], inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """One ONNX model of several (name, model), which run in this order.

    An input of a part is the latest output of that name, or an input of the whole. Inner values are called
    PART/NAME; what is the same weight in two models stays one with the same name.
    """
    import onnx

    parts = list(parts)
    whole = onnx.ModelProto()
    whole.CopyFrom(parts[0][1])
    for field in ("node", "initializer", "input", "output", "value_info"):
        whole.graph.ClearField(field)
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
            added = whole.graph.initializer.add()
            added.CopyFrom(initializer)
            added.name = called(initializer.name)
        for node in graph.node:
            added = whole.graph.node.add()
            added.CopyFrom(node)
            added.name = f"{name}/{node.name}"
            added.input[:] = map(called, node.input)
            added.output[:] = map(called, node.output)
        for value in graph.output:
            plain = value.name.removesuffix(GIVEN)
            given_last[plain], now[plain] = value, called(value.name)
    for name in inputs:
        whole.graph.input.add().CopyFrom(taken_first[name])
    for name in outputs:
        whole.graph.node.add(op_type="Identity", name=f"{name}/given", input=[now[name]], output=[name])
        value = whole.graph.output.add()
        value.CopyFrom(given_last[name])
        value.name = name
    return whole
