"""Encoders, recognised by the names and shapes of their weights."""

from typing import Any

from src.weights.backbones import num_indices
from src.weights.rows import State

PLACES_PER_LEVEL = 32  # heads x points, in every published model
LAYERS = "pixel_decoder.encoder.layers."


def schedule_of(state: State, num_levels: int) -> list[int]:
    """How many layers sample 1, 2, ... levels. Raises ValueError for layers that do not update all that they sample."""
    if "pixel_decoder.encoder.updated_levels" in state:
        raise ValueError("its encoder layers do not update all levels that they sample (Lite DETR style)")
    weights = "self_attn.attention_weights.bias"
    count = num_indices(state, rf"pixel_decoder\.encoder\.layers\.(\d+)\.{weights.replace('.', '[.]')}")
    places = [state[f"{LAYERS}{i}.{weights}"].shape[0] for i in range(count)]
    levels = range(1, num_levels + 1)
    usual = set(places) <= {PLACES_PER_LEVEL * n for n in levels}
    per_level = PLACES_PER_LEVEL if usual else max(places) / num_levels
    return [places.count(int(per_level * n)) for n in levels]


def exits_of(state: State, depth: int) -> list[int] | None:
    """The exits of the gate, which are the last ones; None without a gate. Raises ValueError for more than layers."""
    if "gate.head.bias" not in state:
        return None
    count = len(state["gate.head.bias"])
    if count > depth:
        raise ValueError(f"its gate has {count} exits and its encoder {depth} layers")
    return list(range(depth - count + 1, depth + 1)) or None


def gate_settings(exits: list[int] | None) -> dict[str, Any]:
    """Overrides for a gate with these exits. Without a gate, weights say nothing of exits: they are set elsewhere."""
    return {"model/gate": "none"} if exits is None else {"model/gate": "linear", "exits": exits}


def check_positive(numbers: dict[str, object]) -> None:
    """Raise ValueError for whole numbers below 1."""
    for name, value in numbers.items():
        if type(value) is int and value < 1:
            raise ValueError(f"its shapes make {name} {value}")
