"""What a forward pass costs, in multiply-adds, by torch's own counter and without computing anything.

Convention of the papers: one multiply-add counts 1 and is called a FLOP; a norm is 5 and a bilinear
resize 4 per element; element-wise operations and the deformable sampling itself are not counted.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten


def per_element(multiply_adds: int) -> Any:
    """A counting rule: so many multiply-adds per element of the first output."""

    def rule(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        first = out_val[0] if isinstance(out_val, tuple) else out_val
        return 2 * multiply_adds * first.numel()  # the counter's unit is half a multiply-add

    rule._get_raw = True  # type: ignore[attr-defined]
    return rule


RULES = {
    aten.native_layer_norm: per_element(5),
    aten.native_group_norm: per_element(5),
    aten.upsample_bilinear2d: per_element(4),
}


def count(model: nn.Module, size: Sequence[int], exits: Sequence[int] | None = None) -> dict[str, float]:
    """GFLOPs (1e9 multiply-adds) of one image of a size (height, width), by part of the model.

    Returns:
        {"total": ..., and the qualified name of every module: ...}
    """
    fake = FakeTensorMode()  # tensors without memory, yet with a device
    state: dict[str, Any] = {
        name: fake.from_tensor(x.detach().cpu()) for name, x in [*model.named_parameters(), *model.named_buffers()]
    }
    counter = FlopCounterMode(display=False, custom_mapping=RULES)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), fake, counter:
        torch.func.functional_call(model, state, (torch.empty(1, 3, *size), exits))
    for module, training in modes.items():
        module.training = training
    counts = counter.get_flop_counts()
    root = type(model).__name__
    parts = {name.removeprefix(f"{root}."): sum(ops.values()) / 2e9 for name, ops in counts.items() if name != "Global"}
    return {"total": parts.pop(root), **parts}
