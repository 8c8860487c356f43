"""Published detectors: put under our names, told apart, fitted to COCO's categories, or refused."""

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from src.models.backbone import Backbone
from src.models.deformable_decoder import DeformableDecoder
from src.models.denoising import Denoising
from src.models.detection_neck import DetectionNeck
from src.models.detector import Detector
from src.models.detr_decoder import DetrDecoder
from src.models.encoder import Encoder
from src.models.encoder_layers import GlobalEncoderLayer
from src.models.mask2former import Mask2Former
from src.models.pixel_decoder import ConvPixelEmbedding, PixelDecoder
from src.models.queries import LearnedQueries, MixedQueries, ProposedQueries
from src.models.transformer_decoder import TransformerDecoder
from src.weights.checkpoint import Checkpoint, OtherClassesError, fitting
from src.weights.coco_classes import IDS
from src.weights.layouts import from_ours, to_ours

DIM = 32
SMALL = {"dim": DIM, "num_layers": 2, "dim_feedforward": 48}
DINO = {"look_forward_twice": True, "denoising": partial(Denoising, num_queries=4)}


def make_mask2former(num_classes: int) -> nn.Module:
    neck = partial(PixelDecoder, encoder=Encoder([0, 0, 1], DIM), pixel_embedding=ConvPixelEmbedding, dim=DIM)
    decoder = partial(TransformerDecoder, dim=DIM, num_queries=4, num_layers=1)
    return Mask2Former(Backbone("resnet10t"), neck, decoder, num_classes)


def make_detr(num_classes: int) -> nn.Module:
    encoder = Encoder([1], DIM, num_levels=1, layer=GlobalEncoderLayer)
    neck = partial(DetectionNeck, encoder=encoder, dim=DIM, strides=(32,), norm=False)
    return Detector(Backbone("resnet10t"), neck, partial(DetrDecoder, num_queries=4, **SMALL), num_classes)


def make_deformable(queries: type, refine: bool, num_classes: int, **more: object) -> nn.Module:
    encoder = Encoder([0, 0, 1, 2], DIM, num_levels=4)
    neck = partial(DetectionNeck, encoder=encoder, dim=DIM)
    parts = {"queries": partial(queries, num_queries=4), "refine": refine}
    return Detector(Backbone("resnet10t"), neck, partial(DeformableDecoder, **parts, **SMALL, **more), num_classes)


FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "Mask2Former": make_mask2former,
    "DETR": make_detr,
    "Deformable DETR": partial(make_deformable, ProposedQueries, True),
    "DINO": partial(make_deformable, MixedQueries, True, **DINO),
}


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    """One of each family with three classes."""
    return {family: make(num_classes=3) for family, make in FAMILIES.items()}


def checkpoint_of(model: nn.Module) -> Checkpoint:
    return Checkpoint("somewhere", "ours", model.state_dict(), None)


@pytest.mark.parametrize("given", FAMILIES)
@pytest.mark.parametrize("asked", FAMILIES)
def test_weights_fit_their_own_family_alone(given: str, asked: str, models: dict[str, nn.Module]) -> None:
    """Any other is refused in one line that names both, and what they predict."""
    checkpoint = checkpoint_of(models[given])
    if given == asked:
        assert fitting(models[asked], checkpoint).keys() == {
            name for name in models[asked].state_dict() if not name.endswith("num_batches_tracked")
        }
        return
    what = {family: "masks" if family == "Mask2Former" else "boxes" for family in FAMILIES}
    line = f"somewhere is a {given}, which predicts {what[given]}, and the model asked for is a {asked}, which predicts"
    with pytest.raises(ValueError, match=re.escape(f"{line} {what[asked]}; expected weights of a {asked}")) as error:
        fitting(models[asked], checkpoint)
    assert "\n" not in str(error.value)


RECOGNISED = {
    "DETR, unknown, schedule 1, 3 classes, 4 queries": "DETR",
    "PRO-SCALE on Deformable DETR of two stages, unknown, schedule 0 0 1 2, 3 classes, 300 queries": "Deformable DETR",
    "PRO-SCALE on DINO, unknown, schedule 0 0 1 2, 3 classes, 4 queries": "DINO",
}


@pytest.mark.parametrize("words", RECOGNISED)
def test_each_family_is_recognised(words: str, models: dict[str, nn.Module]) -> None:
    """By names and shapes alone; what transformers has no name for does not become one of its layouts."""
    architecture = checkpoint_of(models[RECOGNISED[words]]).architecture()
    assert re.sub(r"a ResNet of [\d ]* bottlenecks", "unknown", str(architecture)) == words
    assert architecture.settings()["segmentation"] == "boxes"
    assert architecture.in_transformers == ("detr" if "DETR, " in words and "PRO" not in words else None)


@pytest.mark.parametrize("share_heads", [True, False])
def test_whether_heads_are_shared_is_recognised(share_heads: bool) -> None:
    """By their number; DINO's layers move boxes either way."""
    model = make_deformable(MixedQueries, True, 3, share_heads=share_heads, **DINO)
    settings = checkpoint_of(model).architecture().settings()
    assert settings["model.decoder.share_heads"] is share_heads
    assert settings["model.decoder.refine"] is True


def test_a_weight_too_few_is_named(models: dict[str, nn.Module]) -> None:
    """A detector that is not whole says what it lacks."""
    state = models["DETR"].state_dict()
    del state["decoder.query_embed.weight"]
    with pytest.raises(ValueError, match=r"weights=somewhere: no whole DETR, it lacks decoder\.query_embed\.weight"):
        Checkpoint("somewhere", "detr", state, None).architecture()


@pytest.mark.parametrize("family", ["DETR", "Deformable DETR", "DINO"])
def test_another_number_of_classes_is_refused_or_dropped(family: str, models: dict[str, nn.Module]) -> None:
    """Both numbers are said; without the class heads, all else fits."""
    checkpoint, seven = checkpoint_of(models[family]), FAMILIES[family](num_classes=7)
    with pytest.raises(OtherClassesError, match=r"^somewhere knows 3 classes and the data have 7$"):
        fitting(seven, checkpoint)
    kept = fitting(seven, checkpoint, drop_class_head=True)
    assert not any(name.startswith(("decoder.class_heads.", "decoder.denoising.")) for name in kept)
    assert "decoder.box_heads.0.0.weight" in kept


@pytest.mark.parametrize("family", ["DETR", "Deformable DETR"])
def test_the_rows_of_coco_ids_become_those_of_its_categories(
    family: str, models: dict[str, nn.Module], capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 13 of 91 is the stop sign, the twelfth category; the first logit of proposals stays; 91 classes keep all."""
    published, eighty = FAMILIES[family](num_classes=91), FAMILIES[family](num_classes=80)
    with torch.no_grad():
        for head in published.decoder.class_heads:  # type: ignore[union-attr]
            head.bias.copy_(torch.arange(len(head.bias)))
    heads = [
        value.int().tolist()
        for name, value in fitting(eighty, checkpoint_of(published)._replace(source=family)).items()
        if re.fullmatch(r"decoder\.class_heads\.\d+\.bias", name)
    ]
    assert len(IDS) == 80
    assert IDS[11] == 13
    assert all(head[:80] == IDS for head in heads[: 1 if family == "DETR" else 2])
    assert [head[80:] for head in heads] == ([[91]] if family == "DETR" else [[], [], []])
    if family != "DETR":
        assert heads[-1] == [0, *IDS[1:]]
    assert "those of COCO's 80 categories are taken" in capsys.readouterr().err
    same = fitting(FAMILIES[family](num_classes=91), checkpoint_of(published))
    assert torch.equal(same["decoder.class_heads.0.bias"], published.state_dict()["decoder.class_heads.0.bias"])


def theirs(model: nn.Module) -> dict[str, Tensor]:
    """The head weights and the embedding of levels of a Deformable DETR under their names."""
    state = {n: v for n, v in model.state_dict().items() if n.startswith(("decoder.", "pixel_decoder.level_embed"))}
    return from_ours(state, "deformable_detr")


def box_heads(state: dict[str, Tensor]) -> set[str]:
    return {name for name in state if re.fullmatch(r"decoder\.(class|box)_heads\.\d+\.(0\.)?bias", name)}


def test_heads_that_layers_share_are_read_once() -> None:
    """Published plain models repeat them for each layer, version 5 writes the first; those that differ are refused."""
    state = theirs(make_deformable(LearnedQueries, False, 3))
    once = to_ours(state, "deformable_detr")
    repeated = {n.replace("embed.0.", "embed.1."): v for n, v in state.items() if "_embed.0." in n}
    several = to_ours(state | repeated, "deformable_detr")
    assert box_heads(once) == box_heads(several) == {"decoder.class_heads.0.bias", "decoder.box_heads.0.0.bias"}
    repeated["bbox_embed.1.layers.2.bias"] = torch.full((4,), 7.0)
    with pytest.raises(ValueError, match=r"bbox_embed\.0\.layers\.2\.bias: copies of it differ"):
        to_ours(state | repeated, "deformable_detr")


def test_class_heads_that_version_5_ties_are_one_for_each_layer() -> None:
    """A model with refinement has as many class heads as box heads, also if its file holds the first alone."""
    whole = theirs(make_deformable(LearnedQueries, True, 3))
    tied = {name: value for name, value in whole.items() if not name.startswith("class_embed.1.")}
    alone = {name: value for name, value in tied.items() if not name.startswith("bbox_embed.")}  # decoder's copies
    for state in (whole, tied, alone):
        ours = to_ours(state, "deformable_detr")
        assert box_heads(ours) == {
            *(f"decoder.class_heads.{i}.bias" for i in range(2)),
            *(f"decoder.box_heads.{i}.0.bias" for i in range(2)),
        }


def test_levels_change_their_order() -> None:
    """Finest first there, coarsest first here; twice is as before."""
    model = make_deformable(LearnedQueries, False, 3)
    there = theirs(model)
    embed = model.pixel_decoder.level_embed  # type: ignore[union-attr]
    assert torch.equal(there["model.level_embed"], embed.flip(0))
    bias = there["model.decoder.layers.0.encoder_attn.sampling_offsets.bias"].view(8, 4, 4, 2)
    ours = model.decoder.layers[0].cross_attn.sampling_offsets.bias.view(8, 4, 4, 2)  # type: ignore[union-attr, index]
    assert torch.equal(bias, ours.flip(1))
    back = to_ours(there, "deformable_detr")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in back.items())


def test_one_level_is_refused() -> None:
    """A single-scale Deformable DETR, which has no order of levels that we know, is no crash."""
    with pytest.raises(ValueError, match="it has no level_embed: a Deformable DETR of several levels was expected"):
        to_ours({"model.input_proj.0.0.bias": torch.zeros(4)}, "deformable_detr")
