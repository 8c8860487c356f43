"""Small models with random weights that several tests export."""

from collections.abc import Sequence
from typing import Any

import torch
from hydra.utils import instantiate

from src.config.command_line import configure
from src.models.attention import DeformableAttention

SMALL = [
    "trainer.accelerator=cpu",
    "model.backbone.pretrained=false",
    "dim=32",
    "num_queries=5",
    "model.decoder.num_layers=2",
]
FOUND = -9.0  # bias of "no object": random queries find something


def model_of(*settings: str, exits: Sequence[int] = (1, 2), schedule: Sequence[int] = (1, 1, 0)) -> Any:
    """A model on made scenes, whose samples lie anywhere, also outside the levels."""
    chosen = [f"exits={list(exits)}", f"schedule={list(schedule)}"]
    cfg = configure(["+experiment=mask2former_shapes", *SMALL, *chosen, "paths.run=.", *settings], "export")
    torch.manual_seed(0)
    model = instantiate(cfg.model, _convert_="all")(num_classes=4).eval()
    for module in model.modules():
        if isinstance(module, DeformableAttention):
            torch.nn.init.normal_(module.sampling_offsets.weight, std=0.3)
            torch.nn.init.normal_(module.attention_weights.weight)
    model.decoder.class_embed.bias.data[-1] = FOUND
    if model.gate is not None:
        torch.nn.init.normal_(model.gate.head.weight)
    return model
