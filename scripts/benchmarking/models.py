"""The models that are compared: ours with several schedules, and that of `transformers` with the weights of ours."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from src.config.build import sketch, task_of
from src.config.command_line import configure
from src.config.schema import check_settings
from src.data.formats.categories import read_categories
from src.models.attention import DeformableAttention
from src.models.gate import gate_inputs
from src.weights.architecture import recognise_mask2former
from src.weights.checkpoint import save
from src.weights.layouts import from_ours
from src.weights.transformers import complete, config

EXPERIMENT = "+experiment=mask2former_coco"
SCHEDULES = {"proscale111": [1, 1, 1], "proscale222": [2, 2, 2], "proscale333": [3, 3, 3]}
PROSCALE = ["model/pixel_embedding=light", "model/recalibration=linear"]
OFFSET = 1.6  # pixels by which places of samples vary, one standard deviation
KEPT = 0.2  # share of queries that post-processing considers


def settings(backbone: str, overrides: Sequence[str]) -> list[str]:
    """Return the overrides of all models."""
    given = [override.lstrip("+").partition("=")[0] for override in overrides]
    chosen = [] if "experiment" in given else [EXPERIMENT]
    chosen += [] if {"model/backbone", "experiment"} & set(given) else [f"model/backbone={backbone}"]
    return [*chosen, *overrides, "paths.run=.", "model.backbone.pretrained=false", "callbacks=[]", "~logger"]


def settled(overrides: Sequence[str]) -> DictConfig:
    """Return the configuration of a model. Raises ValueError for a detector."""
    cfg = configure(list(overrides))
    if cfg.segmentation == "boxes":
        raise ValueError("segmentation=boxes: this benchmark compares Mask2Formers, expected an experiment of masks")
    return cfg


def depth_of(overrides: Sequence[str]) -> int:
    """Return the number of encoder layers that these settings have."""
    return sum(settled(overrides).schedule)


def build(overrides: Sequence[str], classes: str) -> Any:
    """Return a task with a model of random weights whose samples lie apart. Raises ValueError for a wrong setting."""
    cfg = checked(settled(overrides))
    torch.manual_seed(0)
    task = task_of(cfg, categories=read_categories(classes))
    spread(task.model)
    return task


def checked(cfg: DictConfig) -> DictConfig:
    """Return a configuration as it is. Raises ValueError for a wrong setting."""
    check_settings(OmegaConf.to_container(cfg, resolve=True))
    return cfg


@torch.no_grad()
def spread(model: nn.Module) -> None:
    """Let samples lie some pixels apart and weigh differently; a new model samples the same places everywhere."""
    for module in model.modules():
        if isinstance(module, DeformableAttention):
            scale = module.sampling_offsets.in_features**-0.5  # of tokens with a norm
            module.sampling_offsets.weight.normal_(0, OFFSET * scale)
            module.attention_weights.weight.normal_(0, scale)


@torch.no_grad()
def share(source: nn.Module, target: nn.Module) -> None:
    """Copy every weight that both models have in the same shape."""
    have = source.state_dict()
    own = target.state_dict()
    both = {name: value for name, value in have.items() if name in own and own[name].shape == value.shape}
    target.load_state_dict(both, strict=False)


def found(number: int, num_queries: int, num_classes: int, device: torch.device) -> Tensor:
    """Return class logits (B, Q, K + 1) of a trained model's kind: a share of the queries is sure of a class.

    Post-processing gets them instead of those of random weights, which are sure of nothing.
    """
    logits = torch.zeros(number, num_queries, num_classes + 1, device=device)
    sure = round(KEPT * num_queries)
    for query in range(num_queries):
        logits[:, query, query % num_classes if query < sure else num_classes] = 10.0
    return logits


@torch.no_grad()
def scatter(model: Any, images: Tensor) -> list[int]:
    """Give the gate random weights for which the images leave at different exits; return these."""
    seen, _ = model.pixel_decoder.look_and_encode(model.backbone(images), [], model.gate.after, model.first_masks)
    pooled = torch.cat(list(gate_inputs(seen, model.gate.inputs).values()), 1)
    std, mean = torch.std_mean(pooled, 0)
    best = min(len(images), len(model.exits), 3)
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        head = model.gate.head
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
        head.bias.zero_()
        model.gate.absorb(mean, std + 1e-6)  # otherwise what all images share would decide
        if len(set(exits := model.gate.choose(seen))) >= best:
            break
    return exits


class Theirs:
    """Mask2Former of `transformers`, built like a model of ours.

    Args:
        shared: with the weights of ours too; otherwise with random ones.
    """

    def __init__(self, ours: Any, shared: bool = True):
        import transformers

        state = plain_weights(ours)
        architecture = recognise_mask2former(state, "ours")
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        kind = transformers.Mask2FormerForUniversalSegmentation
        about = transformers.Mask2FormerConfig.from_dict(config(state, architecture))
        if shared:
            with TemporaryDirectory() as folder:  # its own loader knows the names of weights in every version
                save(complete(from_ours(state, "transformers")), Path(folder, "model.safetensors"), {})
                about.save_pretrained(folder)
                self.model: Any = kind.from_pretrained(folder)
        else:
            self.model = kind(about)
        self.processor: Any = transformers.Mask2FormerImageProcessor()

    @staticmethod
    def missing(overrides: Sequence[str]) -> str | None:
        """Return why it cannot be compared with models of these settings, if it cannot."""
        if importlib.util.find_spec("transformers") is None:
            return "not installed; pip install '.[test]' brings it"
        model = sketch(settled(overrides), num_classes=1).model
        attention = model.pixel_decoder.encoder.layers[0].self_attn
        known = recognise_mask2former(plain_weights(model), "ours").known
        if not known or (attention.num_heads, attention.num_points) != (8, 4):
            return "it has Swin and ResNet backbones, 8 heads and 4 points only"
        return None


def plain_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a model without those of its gate."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith("gate.")}


def made_images(number: int, size: Sequence[int], device: torch.device) -> list[Tensor]:
    """Return smooth random images (3, H, W), uint8 RGB, coarser and darker ones among them."""
    generator = torch.Generator().manual_seed(1)
    images = []
    for place in range(number):
        grid = torch.rand(1, 3, 4 + 4 * place, 6 + 4 * place, generator=generator) ** (0.5 + place % 3)
        smooth = F.interpolate(grid, tuple(size), mode="bilinear", align_corners=False)[0]
        noise = 0.05 * torch.rand(3, *size, generator=generator)
        images.append((255 * (0.95 * smooth + noise)).clamp(0, 255).byte().to(device))
    return images
