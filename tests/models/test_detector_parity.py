"""Whole detectors against those of `transformers`, with random weights from the files that it saves."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from src.models.backbone import Backbone
from src.models.deformable_decoder import DeformableDecoder
from src.models.detection_neck import DetectionNeck
from src.models.detector import Detector
from src.models.detr_decoder import DetrDecoder
from src.models.encoder import Encoder
from src.models.encoder_layers import GlobalEncoderLayer
from src.models.position import SinePosition
from src.models.queries import LearnedQueries, ProposedQueries
from src.weights.checkpoint import load_weights, read
from src.weights.layouts import from_ours
from tests.models import their_detectors as theirs

WIDTHS: dict[str, Any] = {
    "dim": theirs.DIM,
    "num_layers": theirs.LAYERS,
    "dim_feedforward": theirs.FEEDFORWARD,
}


def make_detr(num_classes: int = theirs.CLASSES) -> Detector:
    encoder = Encoder([2], theirs.DIM, dim_feedforward=theirs.FEEDFORWARD, num_levels=1, layer=GlobalEncoderLayer)
    neck = partial(DetectionNeck, encoder=encoder, dim=theirs.DIM, strides=(32,), norm=False)
    decoder = partial(DetrDecoder, num_queries=theirs.QUERIES, **WIDTHS)
    return Detector(Backbone("resnet50", freeze_norm=True), neck, decoder, num_classes).eval()


def make_deformable(queries: type, refine: bool, num_classes: int = theirs.CLASSES) -> Detector:
    encoder = Encoder([0, 0, 0, 2], theirs.DIM, dim_feedforward=theirs.FEEDFORWARD, num_levels=4)
    neck = partial(DetectionNeck, encoder=encoder, dim=theirs.DIM, position=SinePosition(offset=-0.5))
    decoder = partial(DeformableDecoder, queries=partial(queries, num_queries=theirs.QUERIES), refine=refine, **WIDTHS)
    return Detector(Backbone("resnet50", freeze_norm=True), neck, decoder, num_classes).eval()


MODELS = {
    "detr": make_detr,
    "plain": partial(make_deformable, LearnedQueries, False),
    "refined": partial(make_deformable, LearnedQueries, True),
    "two_stage": partial(make_deformable, ProposedQueries, True),
}


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Their model, ours with its weights, and the folder they came in."""
    folder = tmp_path_factory.mktemp(request.param)
    model = theirs.make_detr() if request.param == "detr" else theirs.make_deformable(request.param)
    model.save_pretrained(folder)
    ours = MODELS[request.param]()
    load_weights(ours, str(folder))
    return model, ours, folder


@pytest.mark.slow
@pytest.mark.parametrize("images", theirs.BATCHES.values(), ids=theirs.BATCHES.keys())
@torch.no_grad()
def test_all_predictions_agree(pair, images: theirs.Images) -> None:
    """Logits and boxes after every decoder layer, also where images of two sizes are padded to one batch."""
    model, ours, _ = pair
    run = theirs.run_detr if isinstance(ours.decoder, DetrDecoder) else theirs.run_deformable
    expected = run(model, images)
    ((_, predictions),) = ours(images.pixels, sizes=images.sizes).items()
    theirs.agree(predictions[-theirs.LAYERS :], expected.predictions)


@torch.no_grad()
def test_weights_go_back(pair) -> None:
    """Under their names again, every tensor of their file is there, and equal; what is more are copies of heads."""
    _, ours, folder = pair
    layout = "detr" if isinstance(ours.decoder, DetrDecoder) else "deformable_detr"
    back, file = from_ours(ours.state_dict(), layout), load_file(folder / "model.safetensors")
    assert all(torch.equal(back[name], value) for name, value in file.items())
    assert all("_embed." in name for name in back.keys() - file.keys())


def test_a_model_is_recognised(pair) -> None:
    """In words, from names and shapes; the number of proposals is no weight, and is that of published models."""
    _, _, folder = pair
    kinds = {"detr": "DETR, resnet50, schedule 2, 5 classes, 7 queries"}
    kinds["plain"] = "Deformable DETR, resnet50, schedule 0 0 0 2, 5 classes, 7 queries"
    kinds["refined"] = "Deformable DETR with refinement, resnet50, schedule 0 0 0 2, 5 classes, 7 queries"
    kinds["two_stage"] = "Deformable DETR of two stages, resnet50, schedule 0 0 0 2, 5 classes, 300 queries"
    name = next(name for name in MODELS if Path(folder).name.startswith(name))
    assert str(read(str(folder)).architecture()) == kinds[name]


@torch.no_grad()
def test_names_in_memory_are_those_of_files(pair, tmp_path: Path) -> None:
    """A state dict of version 5, with its newer names and with every head several times, is read alike."""
    model, ours, _ = pair
    state = {name: value.clone() for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "memory.safetensors")
    for parameter in ours.parameters():
        parameter.zero_()
    load_weights(ours, str(tmp_path / "memory.safetensors"))
    again = from_ours(ours.state_dict(), "detr" if isinstance(ours.decoder, DetrDecoder) else "deformable_detr")
    file = load_file(pair[2] / "model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in file.items())


@pytest.mark.slow
@torch.no_grad()
def test_a_backbone_of_transformers_is_read_too(tmp_path: Path) -> None:
    """DETR is also published with the ResNet of transformers in place of timm's."""
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = theirs.transformers.ResNetConfig(out_features=stages)
    model = theirs.make_detr(backbone_config=backbone, use_timm_backbone=False)
    model.save_pretrained(tmp_path)
    ours = make_detr()
    load_weights(ours, str(tmp_path))
    images = theirs.BATCHES["two sizes, padded"]
    ((_, predictions),) = ours(images.pixels, sizes=images.sizes).items()
    theirs.agree(predictions, theirs.run_detr(model, images).predictions)
