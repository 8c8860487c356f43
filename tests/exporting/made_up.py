"""Small models with random weights that several tests export."""

from collections.abc import Sequence
from typing import Any

import torch
from hydra.utils import instantiate

from src.config.command_line import configure
from src.models.attention import DeformableAttention
from src.models.gate import Gate, input_widths

SMALL = [
    "trainer.accelerator=cpu",
    "model.backbone.pretrained=false",
    "dim=64",  # two channels share a group norm: the mean of one alone is zero, and a gate sees nothing
    "num_queries=5",
    "model.decoder.num_layers=2",
]
FOUND = -9.0  # bias of "no object": random queries find something


def model_of(*settings: str, exits: Sequence[int] = (1, 3), schedule: Sequence[int] = (0, 0, 3)) -> Any:
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
    return model


def look_back(model: Any) -> None:
    """Give a model a gate that sees what the first exit changed, and its masks."""
    inputs = ["mean32", "change32", "first_masks"]
    widths = input_widths(inputs, model.pixel_decoder.dim, model.decoder.num_queries)
    model.gate = Gate(list(widths.values()), model.exits, inputs).eval().requires_grad_(False)
    torch.nn.init.normal_(model.gate.head.weight)
