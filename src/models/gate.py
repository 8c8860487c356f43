"""The gate: which exit an image should take, from statistics of its levels before any encoder layer.

Letters: B images, C channels, F statistics of an image, E exits, h x w the pixels of a level.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LEVELS = {32: 0, 16: 1, 8: 2}  # place of each stride among the levels
POOLS = {"mean": lambda level: level.mean((2, 3)), "std": lambda level: level.std((2, 3), correction=0)}
INPUTS = {f"{pool}{stride}": (POOLS[pool], place) for stride, place in LEVELS.items() for pool in POOLS}


def check_inputs(names: Sequence[str]) -> None:
    """Raise ValueError for unknown or repeated names of statistics, and for none at all."""
    if not names or len(set(names)) < len(names):
        raise ValueError(f"inputs={list(names)}: expected some of {', '.join(INPUTS)}, none twice")
    if unknown := [name for name in names if name not in INPUTS]:
        raise ValueError(f"inputs={list(names)}: no {unknown[0]!r}, expected some of {', '.join(INPUTS)}")


def gate_inputs(levels: Sequence[Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Statistics by name, (B, C) each, of the projected levels (B, C, h, w), coarsest first.

    `mean32`, the input of ECO-M2F's gate, is the mean over the tokens of stride 32, `std32` their standard deviation;
    strides 16 and 8 have the same.
    """
    check_inputs(names)
    return {name: INPUTS[name][0](levels[INPUTS[name][1]].float()) for name in names}


class Gate(nn.Module):
    """A score per exit from statistics of the levels before any encoder layer (ECO-M2F, step C).

    Args:
        dim: channels of a level.
        exits: depths to choose from, shallowest first.
        inputs: which statistics, see `gate_inputs`.
        hidden: width of a hidden layer; 0: none, as in the published gate.
        beta: penalty on the scores for each encoder layer; 0 unless the scores are qualities.
    """

    def __init__(
        self, dim: int, exits: Sequence[int], inputs: Sequence[str] = ("mean32",), hidden: int = 0, beta: float = 0.0
    ):
        super().__init__()
        check_inputs(inputs)
        self.exits, self.inputs, self.hidden, self.beta = list(exits), list(inputs), hidden, beta
        width = dim * len(self.inputs)
        self.embed = nn.Sequential(nn.Linear(width, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.head = nn.Linear(hidden or width, len(self.exits))
        for linear in self.modules():
            if isinstance(linear, nn.Linear):
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.head.weight)  # exits differ little: random initial scores would drown the difference

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """The projected levels (B, C, h, w), coarsest first, to scores (B, E), shallowest exit first."""
        return self.score(torch.cat(list(gate_inputs(levels, self.inputs).values()), 1))

    def choose(self, levels: Sequence[Tensor]) -> list[int]:
        """The depth at which each image (B,) should leave: that of the highest score, the shallowest of equals."""
        scores = self(levels).double()
        return [self.exits[place] for place in (scores - self.beta * scores.new_tensor(self.exits)).argmax(1).tolist()]

    def score(self, pooled: Tensor) -> Tensor:
        """Statistics (B, F), those of `inputs` side by side, to scores (B, E)."""
        return self.head(self.embed(pooled))

    @torch.no_grad()
    def absorb(self, mean: Tensor, std: Tensor) -> None:
        """Build the normalisation of inputs, (x - mean) / std with (F,) each, into the first layer; scores stay."""
        first: nn.Linear = next(module for module in self.modules() if isinstance(module, nn.Linear))
        first.weight.div_(std)
        first.bias.sub_(first.weight @ mean)
