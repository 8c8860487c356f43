"""The optimiser, with the parameter groups of Mask2Former and DETR."""

from collections.abc import Mapping
from math import prod

import torch
from torch import nn

from src.models.encoder import Encoder
from src.models.encoder_layers import GlobalAttentionLayer

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
POSITION_TABLES = ("relative_position_bias_table", "absolute_pos_embed")
ATTENTION_ENCODERS = (Encoder, GlobalAttentionLayer)  # GlobalAttentionLayer: of an encoder that also has convolutions


def adamw(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    backbone_lr_multiplier: float = 0.1,
    encoder_lr_multiplier: float = 1.0,
    lr_multipliers: Mapping[str, float] | None = None,
    decay_all: bool = False,
) -> torch.optim.AdamW:
    """Return AdamW with a lower rate for the backbone, and no decay of norms, embeddings and Swin's position tables.

    Args:
        encoder_lr_multiplier: of an encoder's layers of attention and of what recalibrates them; those of an encoder of
            convolutions keep the rate of other new layers.
        lr_multipliers: by a part of a parameter's name, such as `sampling_offsets`.
        decay_all: decay all weights alike, as the recipes of DETR and its successors do.
    """
    by_name = {"backbone.": backbone_lr_multiplier, **(lr_multipliers or {})}
    encoders = [one for one in model.modules() if isinstance(one, ATTENTION_ENCODERS)]
    of_encoders = {parameter for encoder in encoders for parameter in encoder.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            free = not decay_all and (isinstance(module, (*NORMS, nn.Embedding)) or name in POSITION_TABLES)
            whole = f"{module_name}.{name}"
            multiplier = prod(one for part, one in by_name.items() if part in whole)
            multiplier *= encoder_lr_multiplier if parameter in of_encoders else 1
            groups.setdefault((lr * multiplier, 0.0 if free else weight_decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
    )
