"""Any timm model as a backbone: images to feature maps of strides 4, 8, 16 and 32."""

import difflib
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from torch import Tensor, nn

from src.models.backbone_layers import use_our_layers
from src.weights.checkpoint import read_tensors

STRIDES = (4, 8, 16, 32)


class Backbone(nn.Module):
    """The stride 4 to 32 feature maps of a timm model, or those up to a finer stride if `options` ends it there.

    Args:
        name: a timm model name whose features come at strides 4, 8, 16 and 32.
        pretrained: True for the hub's weights, a path for a local file, False for random weights.
        freeze_norm: turn batch norms into constants (Mask2Former's ResNets on COCO and ADE20K).
        sync_norm: batch norms see the batch of all devices (its ResNets on Cityscapes).
        output_norm: a LayerNorm on each output (Mask2Former's Swins).
        frozen_stages: stages that are not trained, with the stem before them (DETR's ResNets: 1, up to stride 4). Their
            batch norms are constants only with `freeze_norm`.
        mean, std: of RGB in 0..255; null: what timm's weights were trained with.
        options: further arguments of the timm model, for example `drop_path_rate`, or `out_indices` without the last
            stage, which most models then do not have.

    Raises:
        ValueError: no such timm model, one without those strides, or more frozen stages than it has.
        FileNotFoundError: `pretrained` names no file.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool | str = False,
        freeze_norm: bool = False,
        sync_norm: bool = False,
        output_norm: bool = False,
        frozen_stages: int = 0,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        options: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.name = name
        self.body: Any = create_body(name, pretrained, options or {})
        strides = self.body.feature_info.reduction()
        self.strides = [stride for stride in STRIDES if stride in strides]
        whole = STRIDES[: max(len(self.strides), 1)] if "out_indices" in (options or {}) else STRIDES
        if tuple(self.strides) != whole:
            raise ValueError(f"backbone {name!r} has features at strides {strides}, expected {list(whole)} among them")
        self.picked = [len(strides) - 1 - strides[::-1].index(stride) for stride in self.strides]  # the last of each
        self.channels = {
            stride: self.body.feature_info.channels()[i] for stride, i in zip(self.strides, self.picked, strict=True)
        }
        self.channels_last = str(getattr(self.body, "output_fmt", "")).endswith("NHWC")
        self.norms = nn.ModuleList(
            nn.LayerNorm(dim) if output_norm else nn.Identity() for dim in self.channels.values()
        )
        pretrained_cfg = self.body.pretrained_cfg
        self.mean = tuple(mean or [255 * value for value in pretrained_cfg["mean"]])
        self.std = tuple(std or [255 * value for value in pretrained_cfg["std"]])
        if freeze_norm:
            self.body = freeze_batch_norm_2d(self.body)
        if sync_norm:  # by timm, since torch's own conversion would lose the activations that timm joins to norms
            self.body = convert_sync_batchnorm(self.body)
        use_our_layers(self.body)
        self.freeze(frozen_stages)

    def freeze(self, stages: int) -> None:
        """Do not train the first stages, each of which ends with a feature map, nor what comes before them."""
        if not 0 <= stages <= (most := len(self.strides)):
            raise ValueError(f"frozen_stages={stages}: expected 0 to {most}, one for each stride of {self.strides}")
        if stages:
            ends = self.body.feature_info.module_name()[self.picked[stages - 1]].replace(".", "_") + "_"
            # in the order in which they run
            names = [name.replace(".", "_") for name, _ in self.body.named_parameters()]
            count = max(place for place, name in enumerate(names, 1) if name.startswith(ends))
            for parameter in islice(self.body.parameters(), count):
                parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Normalised images (B, 3, H, W) to features {stride: (B, C_stride, H/stride, W/stride)}."""
        if not self.training:  # channels last is faster in most networks, but their batch statistics are less accurate
            images = images.contiguous(memory_format=torch.channels_last)
        try:
            outputs = self.body(images)
        except AssertionError as error:  # timm raises it for unsupported image sizes
            size = "x".join(map(str, images.shape[-2:]))
            raise ValueError(f"backbone {self.name!r} takes no images of {size} ({error}); see its options") from error
        features = {}
        for stride, i, norm in zip(self.strides, self.picked, self.norms, strict=True):
            feature = outputs[i] if self.channels_last else outputs[i].permute(0, 2, 3, 1)  # (B, h, w, C)
            features[stride] = norm(feature).permute(0, 3, 1, 2)
        return features

    def set_grad_checkpointing(self) -> None:
        """Recompute activations in the backward pass, if the timm model supports it."""
        self.body.set_grad_checkpointing(True)


class MissingKeys(logging.Handler):
    """Collect the names of missing weights from timm's log; timm logs them and keeps random values."""

    def __enter__(self) -> "MissingKeys":
        self.keys: list[str] = []
        self.log = logging.getLogger("timm.models._builder")
        self.before = self.log.level, self.log.propagate
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        self.log.addHandler(self)
        return self

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"Missing keys \((.*?)\)", record.getMessage())
        self.keys += found[1].split(", ") if found else []

    def __exit__(self, *_: object) -> None:
        self.log.removeHandler(self)
        self.log.level, self.log.propagate = self.before

    def among(self, names: Iterable[str]) -> list[str]:
        """Return the missing ones among `names`; feature extractors may replace dots in names by underscores."""
        return sorted({key.replace(".", "_") for key in self.keys} & {name.replace(".", "_") for name in names})


def reachable() -> bool:
    """Return whether the hub responds to one request within ten seconds."""
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:  # the server responded
        return True
    except OSError:
        return False
    return True


def create_body(name: str, pretrained: bool | str, options: dict[str, Any]) -> Any:
    """Create the timm model as a feature extractor. Raises as `Backbone` does."""
    models = timm.list_models()
    if name.split(".")[0] not in models:
        near = difflib.get_close_matches(name, models, 8)
        raise ValueError(f"backbone {name!r} is no timm model{'; near it: ' if near else ''}{', '.join(near)}")
    local: dict[str, Any] = {}
    if isinstance(pretrained, str):
        if not Path(pretrained).is_file():
            raise FileNotFoundError(f"backbone.pretrained={pretrained}: no such file; true fetches, false does without")
        state = read_tensors([Path(pretrained)], "backbone.pretrained")
        local = {"pretrained_cfg_overlay": {"state_dict": state}}
    elif pretrained and not reachable():
        constants.HF_HUB_OFFLINE = True  # what was fetched before is taken at once, and what was not is not retried
    try:
        with MissingKeys() as missing:
            body: Any = timm.create_model(name, pretrained=bool(pretrained), features_only=True, **local, **options)
    except TypeError as error:
        raise ValueError(f"backbone {name!r} with options {options}: {error}") from error
    except Exception as error:
        if not pretrained:
            raise ValueError(f"backbone {name!r} with options {options}: {error}") from error
        if isinstance(pretrained, str):
            raise ValueError(
                f"backbone.pretrained={pretrained}: no weights of {name!r} ({str(error).splitlines()[0]})"
            ) from error
        raise FileNotFoundError(
            f"backbone.pretrained=true: the weights of {name!r} cannot be fetched from {constants.ENDPOINT} "
            f"({str(error).splitlines()[0]}); model.backbone.pretrained=FILE takes them from a file, false does without"
        ) from error
    if lacking := missing.among(body.state_dict()):
        raise ValueError(
            f"backbone.pretrained={pretrained}: lacks {len(lacking)} of the {len(body.state_dict())} weights of "
            f"{name!r} with options {options}, such as {lacking[0]}"
        )
    if hasattr(body, "patch_embed"):
        body.patch_embed.dynamic_img_pad = True  # patches too are padded at the right and bottom
    return body
