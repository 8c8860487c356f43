"""Our forms of timm's layers: the same parameters, names and outputs, with another `forward`.

Letters: B images, H x W tokens, C channels, N tokens of a window.
"""

import torch
import torch.nn.functional as F
from timm.layers import FrozenBatchNormAct2d
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

STRIP_TOKENS = 2048  # tokens at a time on CPUs; their activations fit in caches


class PadFirstBlock(SwinTransformerBlock):
    """Swin block that pads to whole windows before it shifts, as Mask2Former's Swin does (timm shifts, then pads)."""

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, H, W, C) to tokens of the same shape."""
        return self.by_strips(x) if self.takes_strips(x) else super().forward(x)

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]  # (B, H, W, C)
        bottom, right = -height % self.window_size[0], -width % self.window_size[1]
        return super()._attn(F.pad(x, (0, 0, 0, right, 0, bottom)))[:, :height, :width]

    def takes_strips(self, x: Tensor) -> bool:
        """Return whether `by_strips` applies: inference in one precision on a CPU, neither counted nor compiled."""
        inference = not (self.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        return inference and x.is_cpu and type(x) is Tensor and not torch.compiler.is_compiling()

    def by_strips(self, x: Tensor) -> Tensor:
        """As the reference, timm's `forward`, a few rows of windows at a time.

        Windows are independent of each other, and so are tokens in norms and MLPs. It is faster because what a strip
        computes stays in the CPU's cache, where the reference writes and reads whole maps in memory.
        """
        (size, _), (shift, _) = self.window_size, self.shift_size
        batch, height, width, _ = x.shape
        padded_height, padded_width = height + -height % size, width + -width % self.window_size[1]
        step = size * max(1, STRIP_TOKENS // (batch * size * padded_width))
        strips, wrapped = [], x[:, :0]
        for top in range(0, padded_height, step):
            bottom = min(top + step, padded_height)
            last = bottom == padded_height
            strip = x[:, top + shift : bottom + shift]
            around = x[:, : shift if last else 0]  # the shift moves the first rows below the last ones
            missing = bottom - top - strip.shape[1] - around.shape[1]
            rows = torch.cat([strip, around], 1) if last and shift else strip
            inner, outer = self.norm1(rows).split([strip.shape[1], around.shape[1]], 1)
            inner = F.pad(inner, (0, 0, 0, padded_width - width, 0, missing))
            outer = F.pad(outer, (0, 0, 0, padded_width - width))
            attended = self.strip_attention(torch.cat([inner, outer], 1), last)[:, :, :width]
            kept = [attended[:, : strip.shape[1]], attended[:, strip.shape[1] + missing :]]
            rows = rows + torch.cat(kept, 1)
            rows += self.mlp(self.norm2(rows))
            strip, wrapped = rows.split([strip.shape[1], around.shape[1]], 1)
            strips.append(strip)
        return torch.cat([wrapped, *strips], 1)

    def strip_attention(self, x: Tensor, last: bool) -> Tensor:
        """Attention in the windows of a padded strip (B, h, W, C), of which rows are shifted and columns not yet."""
        height, width = x.shape[1:3]
        shift = self.shift_size[1]
        windows = window_partition(torch.roll(x, -shift, 2), self.window_size).flatten(1, 2)
        mask = self.strip_mask(height // self.window_size[0], width // self.window_size[1], last, x)
        windows = self.attn(windows, mask=mask).unflatten(1, self.window_size)
        return torch.roll(window_reverse(windows, self.window_size, height, width), shift, 2)

    def strip_mask(self, rows: int, columns: int, last: bool, like: Tensor) -> Tensor | None:
        """Return the attention mask (rows * columns, N, N) of a strip's windows, `get_attn_mask` of timm for all.

        A shift brings tokens of opposite sides into the last column and the last row of windows.
        """
        if not any(self.shift_size):
            return None
        (height, width), (down, right) = self.window_size, self.shift_size
        below = (torch.arange(height, device=like.device) >= height - down).repeat_interleave(width)  # (N,)
        beside = (torch.arange(width, device=like.device) >= width - right).repeat(height)
        apart = torch.zeros(rows, columns, self.window_area, self.window_area, dtype=torch.bool, device=like.device)
        apart[:, -1] = beside != beside[:, None]
        if last:
            apart[-1] |= below != below[:, None]
        return like.new_zeros(apart.shape).masked_fill_(apart, -100.0).flatten(0, 1)


class FrozenNorm(FrozenBatchNorm2d):
    """Frozen batch norm as a single operation; torchvision recomputes the scale in every forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class FrozenNormAct(FrozenBatchNormAct2d):
    """`FrozenNorm` followed by the activation that some timm models fuse with it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(FrozenNorm.forward(self, x)))  # type: ignore[arg-type]


OUR_LAYERS = {
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
