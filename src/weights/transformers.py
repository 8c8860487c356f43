"""Completes converted weights to a Mask2Former of `transformers`: buffers and config.json."""

from typing import Any

import torch

from src.weights.architecture import Architecture
from src.weights.backbones import resnet_blocks, swin_shape
from src.weights.mask2former_rows import BODY
from src.weights.rows import State

NO_OBJECT_WEIGHT = 0.1
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def complete(state: State) -> State:
    """A state of its layout with the weights that no forward pass reads, as a new model has them."""
    num_classes = len(state["class_predictor.bias"])
    extra = {"criterion.empty_weight": torch.tensor([1.0] * (num_classes - 1) + [NO_OBJECT_WEIGHT])}
    for name, value in state.items():
        if name.endswith(".running_var"):
            extra[name.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
        if name == BODY + "hidden_states_norms.stage4.weight":
            extra[BODY + "swin.layernorm.weight"] = torch.ones_like(value)
            extra[BODY + "swin.layernorm.bias"] = torch.zeros_like(value)
    return state | extra


def config(state: State, architecture: Architecture) -> dict[str, Any]:
    """The content of its config.json for weights under our names."""
    return {
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "model_type": "mask2former",
        "backbone_config": swin(state) if "swin" in architecture.backbone else resnet(state),
        "feature_size": architecture.dim,
        "mask_feature_size": architecture.dim,
        "hidden_dim": architecture.dim,
        "encoder_feedforward_dim": architecture.encoder_feedforward,
        "encoder_layers": sum(architecture.schedule),
        "decoder_layers": architecture.decoder_layers + 1,  # it counts the predictions
        "dim_feedforward": architecture.decoder_feedforward,
        "num_attention_heads": 8,
        "num_queries": architecture.num_queries,
        "no_object_weight": NO_OBJECT_WEIGHT,
        "id2label": {str(index): f"LABEL_{index}" for index in range(architecture.num_classes)},
    }


def swin(state: State) -> dict[str, Any]:
    """`backbone_config` of a Swin."""
    width, blocks, window = swin_shape(state)
    tables = [state[f"backbone.body.layers_{i}.blocks.0.attn.relative_position_bias_table"] for i in range(4)]
    return {
        "model_type": "swin",
        "embed_dim": width,
        "depths": list(blocks),
        "num_heads": [table.shape[1] for table in tables],
        "window_size": window,
        "drop_path_rate": 0.3,
        "out_features": STAGES,
    }


def resnet(state: State) -> dict[str, Any]:
    """`backbone_config` of a ResNet of bottlenecks."""
    body = "backbone.body."
    return {
        "model_type": "resnet",
        "layer_type": "bottleneck",
        "embedding_size": state[body + "conv1.weight"].shape[0],
        "depths": list(resnet_blocks(state)),
        "hidden_sizes": [state[f"{body}layer{i}.0.conv3.weight"].shape[0] for i in (1, 2, 3, 4)],
        "out_features": STAGES,
    }
