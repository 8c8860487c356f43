"""The gate: which exit an image should take, from what the model has seen of it so far.

ECO-M2F's gate sees the levels before any encoder layer. Inputs that look back, which are ours, wait for the first exit.

Letters: B images, C channels, Q queries, F numbers that describe an image, E exits, h x w the pixels of a level.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Seen(NamedTuple):
    """What a gate may look at. Levels are (B, C, h, w) by stride, coarsest first."""

    levels: Mapping[int, Tensor]  # projected, before any layer
    earlier: Mapping[int, Tensor] = {}  # one layer before the latest
    latest: Mapping[int, Tensor] = {}  # after the layers that all images run
    masks: Callable[[], Tensor] | None = None  # computes the first masks from the latest: logits (B, Q, h, w)
    inside: Mapping[int, Tensor] | None = None  # (B, h, w) bool by stride, True inside of the image; None: all are


class Input(NamedTuple):
    """How a gate input is computed."""

    of: Callable[[Seen], Tensor]  # (B, F)
    stride: int | None = None  # of the level that it describes; None: it describes masks
    looks_back: bool = False  # it is known after the first exit only
    width: Callable[[int, int], int] = lambda dim, num_queries: dim  # F


STRIDES = (64, 32, 16, 8)  # of the levels that models have: masks those from 32 on, detectors up to all


def mean_of(stride: int) -> Callable[[Seen], Tensor]:
    """The mean over the tokens of a projected level, (B, C)."""
    return lambda seen: mean(seen.levels[stride].float(), seen, stride)


def std_of(stride: int) -> Callable[[Seen], Tensor]:
    """The standard deviation over the tokens of a projected level, (B, C)."""

    def std(seen: Seen) -> Tensor:
        level = seen.levels[stride].float()
        if seen.inside is None:
            return level.std((2, 3), correction=0)
        return mean((level - mean(level, seen, stride)[..., None, None]).square(), seen, stride).sqrt()

    return std


def change_of(stride: int) -> Callable[[Seen], Tensor]:
    """How far the last layer moved the tokens of a level: mean absolute difference, (B, C); 0 if it was not active."""
    return lambda seen: mean((seen.latest[stride].float() - seen.earlier[stride].float()).abs(), seen, stride)


def mean(level: Tensor, seen: Seen, stride: int) -> Tensor:
    """The mean over the tokens of a level (B, C, h, w) that are inside of their image, (B, C)."""
    if seen.inside is None:
        return level.mean((2, 3))
    inside = seen.inside[stride][:, None]
    return (level * inside).sum((2, 3)) / inside.sum((2, 3))


def mask_statistics(seen: Seen) -> Tensor:
    """For each query the mean probability of its first mask over the image and the mean certainty |2p - 1|, (B, 2Q)."""
    assert seen.masks is not None
    probability = seen.masks().float().sigmoid()
    return torch.cat([probability.mean((2, 3)), (2 * probability - 1).abs().mean((2, 3))], 1)


STATISTICS = {"mean": mean_of, "std": std_of}
INPUTS = {
    **{f"{name}{stride}": Input(of(stride), stride) for stride in STRIDES for name, of in STATISTICS.items()},
    **{f"change{stride}": Input(change_of(stride), stride, looks_back=True) for stride in STRIDES},
    "first_masks": Input(mask_statistics, looks_back=True, width=lambda dim, num_queries: 2 * num_queries),
}


def check_inputs(names: Sequence[str]) -> None:
    """Raise ValueError for unknown or repeated names of inputs, and for none at all."""
    if not names or len(set(names)) < len(names):
        raise ValueError(f"inputs={list(names)}: expected some of {', '.join(INPUTS)}, none twice")
    if unknown := [name for name in names if name not in INPUTS]:
        raise ValueError(f"inputs={list(names)}: no {unknown[0]!r}, expected some of {', '.join(INPUTS)}")


def check_visible(names: Sequence[str], strides: Collection[int], has_masks: bool) -> None:
    """Raise ValueError for an input of a model that has no levels of its stride, or no masks, and for unknown ones."""
    check_inputs(names)
    visible = [name for name, one in INPUTS.items() if (has_masks if one.stride is None else one.stride in strides)]
    if hidden := [name for name in names if name not in visible]:
        raise ValueError(f"inputs={list(names)}: the model has no {hidden[0]!r}, expected some of {', '.join(visible)}")


def input_widths(names: Sequence[str], dim: int, num_queries: int) -> dict[str, int]:
    """How many numbers each input has in a model with so many channels and queries."""
    return {name: INPUTS[name].width(dim, num_queries) for name in names}


def layers_seen(names: Sequence[str], first_exit: int) -> int:
    """After how many encoder layers these inputs are known: 0, or the first exit if any of them looks back."""
    return first_exit if any(INPUTS[name].looks_back for name in names) else 0


def gate_inputs(seen: Seen, names: Sequence[str]) -> dict[str, Tensor]:
    """Inputs by name, (B, F) each.

    `mean32`, the input of ECO-M2F's gate, is the mean over the projected tokens of stride 32, `std32` their standard
    deviation, `change32` how far the last layer up to the first exit moved them; the other strides have the same.
    `first_masks` describes the masks of the decoder's initial queries on the features of the first exit.
    """
    check_visible(names, seen.levels, seen.masks is not None)
    return {name: INPUTS[name].of(seen) for name in names}


class Gate(nn.Module):
    """A score per exit from inputs that describe an image (ECO-M2F, step C).

    Args:
        dim: numbers in each input, one for all if they are alike: the channels of a level.
        exits: depths to choose from, shallowest first.
        inputs: see `gate_inputs`.
        hidden: width of a hidden layer; 0: none, as in the published gate.
        beta: penalty on the scores for each encoder layer; 0 unless the scores are in units of quality.
        first_exit: depth at which look-back inputs are taken; null: the shallowest of `exits`.
    """

    def __init__(
        self,
        dim: int | Sequence[int],
        exits: Sequence[int],
        inputs: Sequence[str] = ("mean32",),
        hidden: int = 0,
        beta: float = 0.0,
        first_exit: int | None = None,
    ):
        super().__init__()
        check_inputs(inputs)
        self.exits, self.inputs, self.hidden, self.beta = list(exits), list(inputs), hidden, beta
        self.after = layers_seen(inputs, first_exit or self.exits[0])  # layers that every image runs before the choice
        self.widths = [dim] * len(self.inputs) if isinstance(dim, int) else list(dim)
        width = sum(self.widths)
        self.embed = nn.Sequential(nn.Linear(width, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.head = nn.Linear(hidden or width, len(self.exits))
        for linear in self.modules():
            if isinstance(linear, nn.Linear):
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.head.weight)  # exits differ little: random initial scores would drown the difference

    def forward(self, seen: Seen) -> Tensor:
        """Scores (B, E), shallowest exit first."""
        return self.score(torch.cat(list(gate_inputs(seen, self.inputs).values()), 1))

    def choose(self, seen: Seen, allowed: Sequence[Sequence[bool]] | None = None) -> list[int]:
        """The depth at which each image (B,) should leave: that of the highest score, the shallowest of equals.

        Args:
            allowed: (B, E), the exits that each image may take, at least one; null: all.
        """
        scores = self(seen).double()
        scores = scores - self.beta * scores.new_tensor(self.exits)
        if allowed is not None:
            scores = scores.masked_fill(~torch.tensor(allowed, device=scores.device), -torch.inf)
        return [self.exits[place] for place in scores.argmax(1).tolist()]

    def score(self, pooled: Tensor) -> Tensor:
        """Inputs (B, F), those of `inputs` side by side, to scores (B, E)."""
        return self.head(self.embed(pooled))

    @torch.no_grad()
    def absorb(self, mean: Tensor, std: Tensor) -> None:
        """Build the normalisation of inputs, (x - mean) / std with (F,) each, into the first layer; scores stay."""
        first: nn.Linear = next(module for module in self.modules() if isinstance(module, nn.Linear))
        first.weight.div_(std)
        first.bias.sub_(first.weight @ mean)

    @torch.no_grad()
    def transform(self, matrix: Tensor, offset: Tensor) -> None:
        """Build matrix @ scores + offset, with (E, E) and (E,), into the last layer."""
        self.head.weight.copy_(matrix @ self.head.weight)
        self.head.bias.copy_(matrix @ self.head.bias + offset)
