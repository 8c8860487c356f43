"""What a gate's checkpoint records besides its weights, and the check that an exit is chosen in one way only."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class GateCheckpoint(NamedTuple):
    """The entry `gate` of a checkpoint's hyper-parameters."""

    inputs: list[str]
    dim: int | list[int]  # numbers in each input; older checkpoints have one number for all
    hidden: int
    exits: list[int]
    target: str
    beta: float  # of the training
    temperature: float
    parent: str  # fingerprint of the weights that the gate was trained for
    source: str  # file of these weights
    segmentation: str
    first_exit: int | None  # of the table, where look-back inputs were taken
    price: float  # subtracted from the scores for each layer when the gate runs, unless the labels contain beta
    centre: str  # of the gains that it was trained on, if its target is gain
    slope: list[float]  # of the lines that make scores of what the gate puts out, see `Lines`
    offset: list[float]
    quality: str = "score"  # of the exit table, in whose units beta is: score or loss

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GateCheckpoint":
        """Read the entry. Raises KeyError for a missing name, TypeError or ValueError for a beta that is no number."""
        return cls(
            inputs=values["inputs"],
            dim=values["dim"],
            hidden=values["hidden"],
            exits=values["exits"],
            target=values["target"],
            beta=float(values["beta"]),
            temperature=values.get("temperature", 0.0),
            parent=str(values["parent"]),
            source=str(values["source"]),
            segmentation=str(values["segmentation"]),
            first_exit=values.get("first_exit"),
            price=float(values.get("price", values["beta"])),
            centre=values.get("centre", "mean"),
            slope=list(values.get("slope", [1.0] * (len(values["exits"]) - 1))),
            offset=list(values.get("offset", [0.0] * (len(values["exits"]) - 1))),
            quality=str(values.get("quality", "score")),
        )


def expect_one(**choices: float | str | None) -> None:
    """Raise ValueError if more than one of some exclusive settings has a value."""
    named = [f"{name}={value}" for name, value in choices.items() if value is not None]
    if len(named) > 1:
        raise ValueError(f"{' and '.join(named)}: both choose where images leave; expected one of them")
