"""The optimiser, with Mask2Former's parameter groups."""

import torch
from torch import nn

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
POSITION_TABLES = ("relative_position_bias_table", "absolute_pos_embed")


def adamw(model: nn.Module, lr: float, weight_decay: float, backbone_lr_multiplier: float = 0.1) -> torch.optim.AdamW:
    """Return AdamW with a lower rate for the backbone, and no decay of norms, embeddings and Swin's position tables."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            free = isinstance(module, (*NORMS, nn.Embedding)) or name in POSITION_TABLES
            multiplier = backbone_lr_multiplier if module_name.startswith("backbone") else 1.0
            groups.setdefault((lr * multiplier, 0.0 if free else weight_decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
    )
