"""The model against an independent Mask2Former, that of `transformers`, with random weights."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from src.data.targets import Truth
from src.losses.criterion import SetCriterion
from src.losses.matcher import HungarianMatcher
from src.models.backbone import Backbone
from src.models.encoder import Encoder
from src.models.mask2former import Mask2Former
from src.models.pixel_decoder import ConvPixelEmbedding, PixelDecoder
from src.models.transformer_decoder import TransformerDecoder
from src.weights.checkpoint import load_weights

transformers = pytest.importorskip("transformers")

STAGES = ["stage1", "stage2", "stage3", "stage4"]
DIM, QUERIES, CLASSES = 64, 17, 5
BACKBONES: dict[str, tuple[Callable, Callable[[], Backbone]]] = {
    "swin_tiny": (
        lambda: transformers.SwinConfig(
            embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, out_features=STAGES
        ),
        lambda: Backbone(
            "swin_tiny_patch4_window7_224",
            output_norm=True,
            options={"strict_img_size": False, "always_partition": True},
        ),
    ),
    "resnet50": (
        lambda: transformers.ResNetConfig(out_features=STAGES),
        lambda: Backbone("resnet50", freeze_norm=True),
    ),
}


def make_theirs(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.Mask2FormerConfig(
        backbone_config=BACKBONES[name][0](),
        feature_size=DIM,
        mask_feature_size=DIM,
        hidden_dim=DIM,
        encoder_feedforward_dim=96,
        dim_feedforward=128,
        encoder_layers=3,
        decoder_layers=10,
        num_attention_heads=8,
        num_queries=QUERIES,
        num_labels=CLASSES,
        train_num_points=300,
    )
    model = transformers.Mask2FormerForUniversalSegmentation(config).eval()
    with torch.no_grad():  # initial values hide what is multiplied by zero
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for key, buffer in model.named_buffers():
            if "running_var" in key:
                buffer.uniform_(0.5, 1.5)
            elif "running_mean" in key:
                buffer.normal_(0, 0.1)
    return model


def make_ours(name: str, num_classes: int = CLASSES) -> Mask2Former:
    encoder = Encoder([0, 0, 3], DIM, dim_feedforward=96)
    return Mask2Former(
        BACKBONES[name][1](),
        partial(PixelDecoder, encoder=encoder, pixel_embedding=ConvPixelEmbedding, dim=DIM),
        partial(TransformerDecoder, dim=DIM, num_queries=QUERIES, num_layers=9, dim_feedforward=128),
        num_classes,
    ).eval()


@pytest.fixture(scope="module", params=list(BACKBONES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Their model and ours with its weights, loaded from the files it saves."""
    folder = tmp_path_factory.mktemp(request.param)
    theirs = make_theirs(request.param)
    theirs.save_pretrained(folder)
    ours = make_ours(request.param)
    load_weights(ours, str(folder))
    return theirs, ours


@pytest.mark.slow
@pytest.mark.parametrize("size", [(128, 160), (101, 150)])
@torch.no_grad()
def test_all_predictions_agree(pair, size: tuple[int, int]) -> None:
    """Class and mask logits of the initial queries and of nine layers, also where no side divides by 32."""
    theirs, ours = pair
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    output = theirs(pixel_values=images, output_auxiliary_logits=True)
    expected = [tuple(layer.values()) for layer in output.auxiliary_logits]
    expected.append((output.masks_queries_logits, output.class_queries_logits))
    (predictions,) = ours(images).values()
    assert len(predictions) == len(expected) == 10
    for prediction, (first, second) in zip(predictions, expected, strict=True):
        masks, classes = (first, second) if first.dim() == 4 else (second, first)
        torch.testing.assert_close(prediction.class_logits, classes, atol=1e-4, rtol=0)
        torch.testing.assert_close(prediction.mask_logits, masks, atol=1e-4, rtol=0)


def halton(*shape, device=None) -> torch.Tensor:
    """Points that depend on the shape asked for alone, so that both sides compare at the same places."""
    if len(shape) == 1 and not isinstance(shape[0], int):
        shape = tuple(shape[0])
    count, points, _ = shape
    steps = torch.arange(1, points + 1)[:, None] * torch.tensor([0.7548776662, 0.5698402910])
    return (steps % 1).expand(count, points, 2).clone()


@torch.no_grad()
def test_matching_and_losses_agree(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the same points, the pairs are the same and so is the sum of all losses of ten layers."""
    theirs, ours = pair
    height, width = 96, 128
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))
    segments = torch.zeros(2, 1, height, width, dtype=torch.int32)
    segments[0, 0, :40], segments[0, 0, 40:, :70], segments[0, 0, 60:, 90:] = 1, 2, 3
    segments[1, 0, 20:50, 30:80], segments[1, 0, 60:] = 1, 2
    labels = [torch.tensor([0, 3, 3]), torch.tensor([4, 1])]
    masks = [torch.stack([(segments[b, 0] == n + 1).float() for n in range(len(labels[b]))]) for b in range(2)]
    (predictions,) = ours(images).values()
    found = []
    match = transformers.models.mask2former.modeling_mask2former.Mask2FormerHungarianMatcher.forward
    monkeypatch.setattr(
        transformers.models.mask2former.modeling_mask2former.Mask2FormerHungarianMatcher,
        "forward",
        lambda *args, **kwargs: found.append(match(*args, **kwargs)) or found[-1],
    )
    monkeypatch.setattr(torch, "rand", halton)

    output = theirs(pixel_values=images, mask_labels=masks, class_labels=labels)
    matcher = HungarianMatcher(num_points=300)
    criterion = SetCriterion(CLASSES, matcher, num_points=300)
    truths = [
        Truth(layers, label, torch.zeros(len(label), dtype=torch.bool), torch.ones(len(label)))
        for layers, label in zip(segments, labels, strict=True)
    ]
    losses, num_bad = criterion(predictions, truths, (height, width))
    assert num_bad == 0
    torch.testing.assert_close(sum(losses.values()), output.loss.squeeze(), atol=1e-4, rtol=0)

    matches, _ = matcher(predictions, labels, segments)
    ours_pairs = [set(zip(*(part.tolist() for part in m), strict=True)) for m in matches]
    their_pairs = [
        {(b, int(q), int(s)) for b, (qs, ss) in enumerate(layer) for q, s in zip(qs, ss, strict=True)}
        for layer in found
    ]
    assert sorted(map(sorted, ours_pairs)) == sorted(map(sorted, their_pairs))


def test_another_number_of_classes_is_refused(pair, tmp_path: Path) -> None:
    """Weights for five classes do not slip into a model with seven: both numbers are said."""
    theirs, _ = pair
    theirs.save_pretrained(tmp_path)
    name = "swin_tiny" if "swin" in theirs.config.backbone_config.model_type else "resnet50"
    with pytest.raises(ValueError, match=r"knows 5 classes and the data have 7$"):
        load_weights(make_ours(name, num_classes=7), str(tmp_path))


def test_missing_weights_say_where_they_were_looked_for(tmp_path: Path) -> None:
    """A path that is not there is no hub name."""
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors: no such file or folder"):
        load_weights(torch.nn.Linear(1, 1), str(tmp_path / "nothing.safetensors"))
