"""DETR's decoder, alone: from the encoder's level to boxes."""

import pytest
import torch

from src.models.detr_decoder import DetrDecoder
from src.weights.layouts import to_ours
from tests.models import their_detectors as theirs


@pytest.fixture(scope="module")
def pair():
    """Their model and our decoder with its weights."""
    model = theirs.make_detr()
    ours = DetrDecoder(theirs.CLASSES, theirs.DIM, theirs.QUERIES, theirs.LAYERS, dim_feedforward=theirs.FEEDFORWARD)
    state = to_ours(model.state_dict(), "detr")
    ours.load_state_dict({n.removeprefix("decoder."): v for n, v in state.items() if n.startswith("decoder.")})
    return model, ours.eval()


@pytest.mark.parametrize("images", theirs.BATCHES.values(), ids=theirs.BATCHES.keys())
@torch.no_grad()
def test_all_layers_agree_with_transformers(pair, images: theirs.Images) -> None:
    """From the memory of their encoder, with its positions and what is inside of each image."""
    model, ours = pair
    expected = theirs.run_detr(model, images)
    memory, position = expected.read["encoder_hidden_states"], expected.read["spatial_position_embeddings"]
    height, width = (-(-side // 32) for side in images.pixels.shape[-2:])
    level, pos = (tokens.mT.unflatten(-1, (height, width)) for tokens in (memory, position))
    inside = expected.read["encoder_attention_mask"].bool().unflatten(-1, (height, width))
    theirs.agree(ours([level], [pos], [inside]), expected.predictions)


@torch.no_grad()
def test_last_only_is_the_last_of_all(pair) -> None:
    """Without changing it."""
    level, pos = torch.randn(2, theirs.DIM, 3, 4), torch.randn(theirs.DIM, 3, 4)
    _, ours = pair
    (last,) = ours([level], [pos], last_only=True)
    expected = ours([level], [pos])[-1]
    assert torch.equal(last.class_logits, expected.class_logits)
    assert torch.equal(last.boxes, expected.boxes)


@torch.no_grad()
def test_pixels_outside_do_not_matter(pair) -> None:
    """Whatever they hold."""
    level, pos = torch.randn(1, theirs.DIM, 3, 4), torch.randn(theirs.DIM, 3, 4)
    inside = torch.ones(1, 3, 4, dtype=torch.bool)
    inside[:, :, 2:] = False
    _, ours = pair
    before = ours([level], [pos], [inside])[-1].boxes
    level[..., 2:] = 100
    assert torch.equal(ours([level], [pos], [inside])[-1].boxes, before)
    level[..., 0] = 100
    assert not torch.equal(ours([level], [pos], [inside])[-1].boxes, before)
