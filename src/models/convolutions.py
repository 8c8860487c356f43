"""Convolutions and norms that project features to levels and maps."""

import torch.nn.functional as F
from torch import Tensor, nn

NUM_GROUPS = 32  # of every group norm


class PointwiseConv(nn.Conv2d):
    """1x1 convolution as a linear layer over channels: one matrix product, where channels are last in memory.

    Torch's own is up to five times slower there in training on CPUs.
    """

    def __init__(self, in_dim: int, dim: int, bias: bool = True):
        super().__init__(in_dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def conv_norm(conv: nn.Conv2d) -> nn.Sequential:
    """A convolution and its group norm, the convolution initialised as detectron2's c2_xavier."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.GroupNorm(NUM_GROUPS, conv.out_channels))


def projection(in_dim: int, dim: int) -> nn.Sequential:
    """1x1 convolution with bias and group norm, from a feature of the backbone to a level."""
    conv = PointwiseConv(in_dim, dim)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.constant_(conv.bias, 0.0)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.GroupNorm(NUM_GROUPS, dim))


def check_groups(dim: int) -> None:
    """Raise ValueError unless the groups of the norms share the channels equally."""
    if dim % NUM_GROUPS:
        raise ValueError(f"dim={dim}: expected a multiple of {NUM_GROUPS}, the groups of the norms")


def shrinking_projection(in_dim: int, dim: int) -> nn.Sequential:
    """3x3 convolution of stride 2 with bias and group norm, from a feature to a level of twice its stride."""
    conv = nn.Conv2d(in_dim, dim, 3, stride=2, padding=1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.constant_(conv.bias, 0.0)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.GroupNorm(NUM_GROUPS, dim))
