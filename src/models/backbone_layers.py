"""Our forms of timm's layers: the same parameters, names and outputs, with another `forward`.

Letters: B images, H x W tokens, C channels, N tokens of a window.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, FrozenBatchNormAct2d
from timm.models._features import FeatureDictNet
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from src.models.tracing import is_exporting

Size = tuple[int, int]  # height, width
STRIP_TOKENS = 2048  # tokens at a time on CPUs; their activations fit in caches


class PadFirstBlock(SwinTransformerBlock):
    """Swin block that pads to whole windows before it shifts, as Mask2Former's Swin does (timm shifts, then pads)."""

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, H, W, C) to tokens of the same shape."""
        return self.by_strips(x) if self.takes_strips(x) else super().forward(x)

    def _attn(self, x: Tensor) -> Tensor:
        """Attention in windows; it copies nothing where there is nothing to pad or shift."""
        height, width = x.shape[1:3]  # (B, H, W, C)
        bottom, right = -height % self.window_size[0], -width % self.window_size[1]
        if bottom or right:
            x = F.pad(x, (0, 0, 0, right, 0, bottom))
        down, across = self.shift_size
        if down or across:
            x = x.roll((-down, -across), (1, 2))
        x = self.attend(x, self.mask_of(x.shape[1:3], x))
        if down or across:
            x = x.roll((down, across), (1, 2))
        return x[:, :height, :width]

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attention in the windows of a padded and shifted map (B, H, W, C)."""
        windows = window_partition(x, self.window_size).flatten(1, 2)
        return window_reverse(
            self.attn(windows, mask=mask).unflatten(1, self.window_size), self.window_size, *x.shape[1:3]
        )

    def mask_of(self, size: Sequence[int], like: Tensor) -> Tensor | None:
        """The attention mask of a padded and shifted map (H, W): (windows, N, N), or None without a shift."""
        if not any(self.shift_size):
            return None
        once = like.is_meta or torch.compiler.is_compiling()
        make = shifted_mask.__wrapped__ if once else shifted_mask
        return make(tuple(size), tuple(self.window_size), tuple(self.shift_size), like.device, like.dtype)

    def takes_strips(self, x: Tensor) -> bool:
        """Return whether `by_strips` applies: inference in one precision on a CPU, neither counted nor compiled."""
        inference = not (self.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        return inference and x.is_cpu and not torch.compiler.is_compiling()

    def by_strips(self, x: Tensor) -> Tensor:
        """As the reference, timm's `forward`, a few rows of windows at a time.

        Windows are independent of each other, and so are tokens in norms and MLPs. It is faster because what a strip
        computes stays in the CPU's cache, where the reference writes and reads whole maps in memory.
        """
        (size, _), (shift, _) = self.window_size, self.shift_size
        batch, height, width, _ = x.shape
        padded_height, padded_width = height + -height % size, width + -width % self.window_size[1]
        step = size * max(1, STRIP_TOKENS // (batch * size * padded_width))
        mask = self.mask_of((padded_height, padded_width), x)
        columns = padded_width // self.window_size[1]
        strips, wrapped = [], x[:, :0]
        for top in range(0, padded_height, step):
            bottom = min(top + step, padded_height)
            last = bottom == padded_height
            wrap = shift if last else 0  # the shift moves the first rows below the last ones
            parts = [x[:, top + shift : bottom + shift], x[:, :wrap]]
            rows = torch.cat(parts, 1) if wrap else parts[0]
            counts = [part.shape[1] for part in parts]
            wanted = [bottom - top - wrap, wrap]
            padded = [
                F.pad(part, (0, 0, 0, padded_width - width, 0, want - count))
                for part, count, want in zip(self.norm1(rows).split(counts, 1), counts, wanted, strict=True)
            ]
            own = None if mask is None else mask[top // size * columns : bottom // size * columns]
            across = self.shift_size[1]
            attended = self.attend(torch.cat(padded, 1).roll(-across, 2), own).roll(across, 2)[:, :, :width]
            kept = [part[:, :count] for part, count in zip(attended.split(wanted, 1), counts, strict=True)]
            rows = rows + torch.cat(kept, 1)
            rows += self.mlp(self.norm2(rows))
            strip, wrapped = rows.split(counts, 1)
            strips.append(strip)
        return torch.cat([wrapped, *strips], 1)


@lru_cache(maxsize=16)  # a few sizes
@torch.inference_mode(False)
def shifted_mask(size: Size, window: Size, shift: Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The mask between tokens that only a shift of a map (H, W) joined, 0 or -100: (windows, N, N)."""
    bands = [
        (at >= side - length).int() + (at >= side - step)
        for side, length, step in zip(size, window, shift, strict=True)
        for at in [torch.arange(side, device=device)]
    ]
    region = (3 * bands[0][:, None] + bands[1])[None, :, :, None]  # (1, H, W, 1)
    region = window_partition(region, window).flatten(1)  # (windows, N)
    return (region[:, None] != region[:, :, None]).to(dtype) * -100


class SameConv(Conv2dSame):
    """A convolution with TensorFlow's padding; constant in an export, whose sides are multiples of every stride.

    In symbols of the image's size the padding of one layer after another grows beyond what torch can simplify.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not is_exporting():
            return super().forward(x)
        pads: list[int] = []  # left, right, top, bottom
        for kernel, stride, dilation in zip(
            self.kernel_size[::-1], self.stride[::-1], self.dilation[::-1], strict=True
        ):
            total = max((kernel - 1) * dilation + 1 - stride, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class FrozenNorm(FrozenBatchNorm2d):
    """Frozen batch norm as a single operation; torchvision recomputes the scale in every forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class FrozenNormAct(FrozenBatchNormAct2d):
    """`FrozenNorm` followed by the activation that some timm models fuse with it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(FrozenNorm.forward(self, x)))  # type: ignore[arg-type]


class FoldedConv(nn.Conv2d):
    """Convolution and the frozen norm that follows it, which is then passed over, in one pass over the activations.

    A frozen norm multiplies channels by constants and adds constants: so may the weights, which are far smaller than
    the activations. Gradients flow through the product.
    """

    norm: nn.Module  # not a submodule, since its parent has it already

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:  # both are counted
            return super().forward(x)
        norm: Any = self.norm
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        bias = shift if self.bias is None else shift + self.bias * scale
        return self._conv_forward(x, self.weight * scale[:, None, None, None], bias)


class FoldedNorm(FrozenNorm):
    """`FrozenNorm` whose convolution has done its work."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.is_meta else x


class FoldedNormAct(FrozenNormAct):
    """`FoldedNorm` followed by an activation."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.is_meta else self.act(self.drop(x))


FOLDED: dict[type[nn.Module], type[nn.Module]] = {FrozenNorm: FoldedNorm, FrozenNormAct: FoldedNormAct}


def fold_norms(body: nn.Module) -> None:
    """Fold frozen norms into convolutions where the one takes the other's output, in place and without new state."""
    for module in body.modules():
        for conv, norm in consecutive(module):
            if type(conv) is nn.Conv2d and type(norm) in FOLDED:
                conv.__class__, norm.__class__ = FoldedConv, FOLDED[type(norm)]
                object.__setattr__(conv, "norm", norm)


def consecutive(module: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Return pairs of children of which the second surely takes the first's output alone."""
    if isinstance(module, nn.Sequential | FeatureDictNet):
        return list(pairwise(module.children()))
    if isinstance(module, BasicBlock | Bottleneck):  # of ResNets
        children = dict(module.named_children())
        return [(children[f"conv{i}"], children[f"bn{i}"]) for i in (1, 2, 3) if f"conv{i}" in children]
    return []


OUR_LAYERS = {
    Conv2dSame: SameConv,
    SwinTransformerBlock: PadFirstBlock,
    FrozenBatchNorm2d: FrozenNorm,
    FrozenBatchNormAct2d: FrozenNormAct,
}


def use_our_layers(body: nn.Module) -> None:
    """Make timm's layers use our `forward`, in place.

    Our classes are subclasses that add no state and have no constructor, so it is enough to change the class of the
    existing modules: weights, names and hooks stay as they are.
    """
    for module in body.modules():
        module.__class__ = OUR_LAYERS.get(type(module), type(module))
    fold_norms(body)
