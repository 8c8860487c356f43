"""The optimiser, with the parameter groups of Mask2Former and DETR."""

from collections.abc import Mapping
from math import prod

import torch
from torch import nn

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
POSITION_TABLES = ("relative_position_bias_table", "absolute_pos_embed")


def adamw(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    backbone_lr_multiplier: float = 0.1,
    lr_multipliers: Mapping[str, float] | None = None,
    decay_all: bool = False,
) -> torch.optim.AdamW:
    """Return AdamW with a lower rate for the backbone, and no decay of norms, embeddings and Swin's position tables.

    Args:
        lr_multipliers: by a part of a parameter's name, such as `sampling_offsets`.
        decay_all: decay all weights alike, as the recipes of DETR and its successors do.
    """
    multipliers = {"backbone.": backbone_lr_multiplier, **(lr_multipliers or {})}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            free = not decay_all and (isinstance(module, (*NORMS, nn.Embedding)) or name in POSITION_TABLES)
            whole = f"{module_name}.{name}"
            multiplier = prod(one for part, one in multipliers.items() if part in whole)
            groups.setdefault((lr * multiplier, 0.0 if free else weight_decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
    )
