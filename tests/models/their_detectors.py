"""DETR and Deformable DETR of `transformers` with random weights, and what they predict after each decoder layer."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from src.models.box_prediction import BoxPrediction

transformers = pytest.importorskip("transformers")

DIM, QUERIES, CLASSES, LAYERS, FEEDFORWARD = 64, 7, 5, 3, 96
SHARED: dict[str, Any] = {
    "d_model": DIM,
    "num_queries": QUERIES,
    "num_labels": CLASSES,
    "encoder_layers": 2,
    "decoder_layers": LAYERS,
    "encoder_ffn_dim": FEEDFORWARD,
    "decoder_ffn_dim": FEEDFORWARD,
}
# Version 5 of transformers ties the class heads of a model with refinement alone to the first one, unlike published
# weights, unless it is told not to.
DEFORMABLE: dict[str, dict[str, Any]] = {
    "plain": {},
    "refined": {"with_box_refine": True, "tie_word_embeddings": False},
    "two_stage": {"with_box_refine": True, "two_stage": True},
}


def make_detr(**backbone: Any) -> Any:
    """A DETR in which nothing is zero, with timm's ResNet-50 or the backbone of some settings."""
    torch.manual_seed(0)
    return perturbed(transformers.DetrForObjectDetection(transformers.DetrConfig(**SHARED, **backbone)))


def make_deformable(name: str, proposals: int = QUERIES) -> Any:
    """A Deformable DETR of some kind in which nothing is zero."""
    torch.manual_seed(0)
    config = transformers.DeformableDetrConfig(**SHARED, **DEFORMABLE[name], two_stage_num_proposals=proposals)
    model = perturbed(transformers.DeformableDetrForObjectDetection(config))
    if name == "refined":  # not tied, so the two are kept equal here
        model.model.decoder.bbox_embed.load_state_dict(model.bbox_embed.state_dict())
    return model


@torch.no_grad()
def perturbed(model: Any) -> Any:
    """A model whose initial zeros and ones are gone."""
    for parameter in model.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return model.eval()


class Images(NamedTuple):
    """A padded batch."""

    pixels: Tensor  # (B, 3, H, W)
    sizes: list[tuple[int, int]]  # of each image inside

    @property
    def mask(self) -> Tensor:
        """(B, H, W), 1 inside the images."""
        mask = torch.zeros(len(self.sizes), *self.pixels.shape[-2:], dtype=torch.long)
        for image, (height, width) in zip(mask, self.sizes, strict=True):
            image[:height, :width] = 1
        return mask


def batch(*sizes: tuple[int, int]) -> Images:
    """Random images of some sizes, padded with zeros."""
    generator = torch.Generator().manual_seed(1)
    height, width = (max(lengths) for lengths in zip(*sizes, strict=True))
    pixels = torch.zeros(len(sizes), 3, height, width)
    for image, (h, w) in zip(pixels, sizes, strict=True):
        image[:, :h, :w] = torch.randn(3, h, w, generator=generator)
    return Images(pixels, list(sizes))


BATCHES = {
    "two of a size": batch((128, 160), (128, 160)),
    "no side divides by 32": batch((101, 150)),
    "two sizes, padded": batch((96, 170), (140, 120)),
}


class Expected(NamedTuple):
    """What a model of theirs computes."""

    predictions: list[tuple[Tensor, Tensor]]  # logits and boxes after each decoder layer
    read: dict[str, Any]  # arguments of its decoder
    output: Any


@torch.no_grad()
def run_detr(model: Any, images: Images) -> Expected:
    """Their predictions; its own auxiliary outputs differ, as `auxiliary_loss` norms the queries between layers."""
    read, states = watched(model), []
    hooks = [
        layer.register_forward_hook(lambda module, args, queries: states.append(model.model.decoder.layernorm(queries)))
        for layer in model.model.decoder.layers
    ]
    output = model(pixel_values=images.pixels, pixel_mask=images.mask)
    for hook in hooks:
        hook.remove()
    heads = [(model.class_labels_classifier(state), model.bbox_predictor(state).sigmoid()) for state in states]
    torch.testing.assert_close(heads[-1], (output.logits, output.pred_boxes))
    return Expected(heads, read, output)


@torch.no_grad()
def run_deformable(model: Any, images: Images) -> Expected:
    """Their predictions, of which all but the last come with a loss."""
    read = watched(model)
    model.config.auxiliary_loss = True
    labels = [{"class_labels": torch.tensor([1]), "boxes": torch.full((1, 4), 0.5)} for _ in images.sizes]
    output = model(pixel_values=images.pixels, pixel_mask=images.mask, labels=labels)
    heads = [(layer["logits"], layer["pred_boxes"]) for layer in output.auxiliary_outputs[: LAYERS - 1]]
    return Expected([*heads, (output.logits, output.pred_boxes)], read, output)


def watched(model: Any) -> dict[str, Any]:
    """A dictionary that receives what the decoder is called with."""
    read: dict[str, Any] = {}

    def keep(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        read.update(kwargs)
        hook.remove()

    hook = model.model.decoder.register_forward_pre_hook(keep, with_kwargs=True)
    return read


def agree(predictions: list[BoxPrediction], expected: list[tuple[Tensor, Tensor]]) -> None:
    """Logits and boxes of every layer are equal within 1e-4, and none is the same as another."""
    assert len(predictions) == len(expected) == LAYERS
    for prediction, (logits, boxes) in zip(predictions, expected, strict=True):
        torch.testing.assert_close(prediction.class_logits, logits, atol=1e-4, rtol=0)
        torch.testing.assert_close(prediction.boxes, boxes, atol=1e-4, rtol=0)
    assert len({float(boxes.sum()) for _, boxes in expected}) == LAYERS
