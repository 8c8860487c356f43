"""config.json of a DETR and of a Deformable DETR of `transformers`, for weights of ours."""

from typing import Any

from src.weights.detector_architecture import DetectorArchitecture
from src.weights.rows import State


def detector_config(state: State, architecture: DetectorArchitecture) -> dict[str, Any]:
    """The content of its config.json for weights under our names."""
    return shared(architecture) | (detr() if architecture.family == "DETR" else deformable_detr(state, architecture))


def shared(architecture: DetectorArchitecture) -> dict[str, Any]:
    """What both models are told."""
    return {
        "backbone": architecture.backbone,  # of timm
        "use_timm_backbone": True,
        "use_pretrained_backbone": False,
        "backbone_config": None,
        "d_model": architecture.dim,
        "encoder_layers": sum(architecture.schedule),
        "encoder_ffn_dim": architecture.encoder_feedforward,
        "encoder_attention_heads": 8,
        "decoder_layers": architecture.decoder_layers,
        "decoder_ffn_dim": architecture.decoder_feedforward,
        "decoder_attention_heads": 8,
        "num_queries": architecture.num_queries,
        "id2label": {str(index): f"LABEL_{index}" for index in range(architecture.num_classes)},
    }


def detr() -> dict[str, Any]:
    """What DETR alone is told."""
    return {"architectures": ["DetrForObjectDetection"], "model_type": "detr"}


def deformable_detr(state: State, architecture: DetectorArchitecture) -> dict[str, Any]:
    """What Deformable DETR alone is told."""
    return {
        "architectures": ["DeformableDetrForObjectDetection"],
        "model_type": "deformable_detr",
        "num_feature_levels": len(state["pixel_decoder.level_embed"]),
        "with_box_refine": architecture.refined,
        "two_stage": architecture.queries == "proposed",
        "two_stage_num_proposals": architecture.num_queries,
        # with refinement, version 5 would make the class heads of all layers that of the first one
        "tie_word_embeddings": not architecture.refined,
    }
