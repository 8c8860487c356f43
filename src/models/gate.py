"""The gate: which exit an image should take, from its coarsest level alone.

Letters: B images, C channels, E exits, h x w the pixels of the coarsest level.
"""

from torch import Tensor, nn


class Gate(nn.Module):
    """A score per exit from the mean of the coarsest level's tokens, before any encoder layer (ECO-M2F, step C)."""

    def __init__(self, dim: int, num_exits: int):
        super().__init__()
        self.head = nn.Linear(dim, num_exits)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, coarsest: Tensor) -> Tensor:
        """The projected level of stride 32 (B, C, h, w) to scores (B, E), shallowest exit first."""
        return self.head(coarsest.mean((2, 3)))
