"""A detector with a decoder that gives back what it reads: necks, padding, exits, gates."""

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.models.backbone import Backbone
from src.models.detection_neck import DetectionNeck
from src.models.detector import Detector
from src.models.encoder import Encoder
from src.models.encoder_layers import GlobalEncoderLayer
from src.models.gate import Gate, Seen
from src.models.neck import Projected

DIM, SIZE = 32, (97, 130)
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "detr": ({"strides": [32], "norm": False}, {"schedule": [3], "num_levels": 1, "layer": GlobalEncoderLayer}),
    "deformable": ({}, {"schedule": [1, 1, 1, 1], "num_levels": 4}),
}
every_kind = pytest.mark.parametrize("kind", list(KINDS))


class Reader(nn.Module):
    """A decoder whose only prediction is what it was given."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.layers = nn.ModuleList()

    def forward(self, *memory: Any, last_only: bool, truths: Any = None) -> list[Any]:
        return [(Projected(*memory), last_only, truths)]


def make_detector(kind: str, **more: Any) -> Detector:
    torch.manual_seed(0)
    neck, encoder = KINDS[kind]
    made = Encoder(dim=DIM, num_heads=4, dim_feedforward=64, **encoder)
    exits = more.pop("exits", [1, 2, 3])
    neck = partial(DetectionNeck, encoder=made, dim=DIM, **neck)
    return Detector(Backbone("resnet18"), neck, Reader, num_classes=5, exits=exits, **more).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kind", "strides"), [("detr", [32]), ("deformable", [64, 32, 16, 8])])
@torch.no_grad()
def test_what_a_decoder_reads(kind: str, strides: list[int], images: Tensor) -> None:
    """Levels, positions and pixels inside of the image, of the same sizes, at every exit; truths pass through."""
    detector = make_detector(kind)
    by_exit = detector(images, last_only=True, sizes=[SIZE, (64, 100)], truths=["a", "b"])
    assert list(by_exit) == [1, 2, 3]
    for ((memory, last_only, truths),) in by_exit.values():
        assert (last_only, truths) == (True, ["a", "b"])
        sizes = [tuple(-(-side // stride) for side in SIZE) for stride in strides]
        assert [tuple(level.shape) for level in memory.levels] == [(2, DIM, *size) for size in sizes]
        assert [tuple(pos.shape) for pos in memory.pos] == [(2, DIM, *size) for size in sizes]
        for one, (rows, columns) in zip(memory.inside, sizes, strict=True):
            assert one[0].all()
            height, width = -(-64 * rows // 97), -(-100 * columns // 130)  # what the image reaches into
            assert one[1, :height, :width].all()
            assert one[1].sum() == height * width


@every_kind
@torch.no_grad()
def test_images_that_fill_the_batch_need_no_mask(kind: str, images: Tensor) -> None:
    """Then the positions are those of all images, and what is inside is not looked at."""
    detector = make_detector(kind)
    for sizes in (None, [SIZE, SIZE]):
        ((memory, _, _),) = detector(images, [3], sizes=sizes)[3]
        assert memory.inside is None
        assert all(pos.dim() == 3 for pos in memory.pos)


@every_kind
@torch.no_grad()
def test_padding_moves_no_gate_and_no_exit(kind: str, images: Tensor) -> None:
    """With the padding of a batch changed, each image takes the same exit and what is inside of it is the same."""
    detector = make_detector(kind, gate=partial(Gate, DIM, inputs=["mean32", "std32", "change32"]))
    torch.nn.init.normal_(detector.gate.head.weight, std=3)
    features = detector.backbone(images)
    changed = {stride: feature.clone() for stride, feature in features.items()}
    sizes = [SIZE, (64, 96)]
    inside = detector.inside(images, sizes)
    for stride, feature in changed.items():
        feature[1, :, 64 // stride + 1 :] += 1.0  # where no convolution reads it for a pixel inside
    neck, gate = detector.pixel_decoder, detector.gate
    (plain, depths), (other, others) = (
        neck.leave(f, gate.choose, gate.after, None, inside) for f in (features, changed)
    )
    assert depths == others
    if kind == "detr":  # group norms are over the whole map
        torch.testing.assert_close(other.levels[0][1][:, :2, :3], plain.levels[0][1][:, :2, :3], atol=1e-5, rtol=1e-5)


@every_kind
@torch.no_grad()
def test_leaving_at_an_exit_is_that_exit(kind: str, images: Tensor) -> None:
    """For images of different sizes, one by one."""
    detector, sizes = make_detector(kind), [SIZE, (64, 100)]
    by_exit = detector(images, sizes=sizes)
    (found, _, _), depths = detector.leave(images, lambda seen: [3, 1], 1, sizes)
    assert depths == [3, 1]
    for image, depth in enumerate(depths):
        for level, expected in zip(found.levels, by_exit[depth][0][0].levels, strict=True):
            torch.testing.assert_close(level[image], expected[image], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_is_seen_on_the_way_to_the_exits(images: Tensor) -> None:
    """Levels by stride before, one layer before and after the layers that all images run, and the exits."""
    detector = make_detector("deformable")
    features, inside = detector.backbone(images), detector.inside(images, [SIZE, (64, 100)])
    shown: list[Seen] = []
    detector.pixel_decoder.leave(features, lambda seen: shown.append(seen) or [2, 2], 2, None, inside)  # type: ignore[func-returns-value]
    seen, memories = detector.pixel_decoder.look_and_encode(features, [2, 3], 2, None, inside)
    assert seen.masks is None
    for found, expected in zip((*seen[:3], seen.inside), (*shown[0][:3], shown[0].inside), strict=True):
        assert list(found) == [64, 32, 16, 8]
        assert all(torch.equal(found[stride], expected[stride]) for stride in found)
    for depth, memory in detector.pixel_decoder(features, [2, 3], inside).items():
        assert all(torch.equal(a, b) for a, b in zip(memories[depth].levels, memory.levels, strict=True))


def test_images_keep_their_size() -> None:
    """A batch is as large as its largest image, and sides are not rounded up."""
    detector = make_detector("detr")
    assert detector.padded((97, 130)) == (97, 130)
    batch = detector.preprocess([torch.zeros(3, 50, 130), torch.zeros(3, 97, 60)])
    assert batch.shape == (2, 3, 97, 130)
    assert not batch[0, :, 50:].any()


@pytest.mark.parametrize(
    ("inputs", "missing"), [(["first_masks"], "first_masks"), (["mean32", "change16"], "change16")]
)
def test_a_gate_sees_no_more_than_there_is(inputs: list[str], missing: str) -> None:
    """A detector has no masks, and DETR one level only: a gate that wants more is refused before anything runs."""
    with pytest.raises(ValueError, match=rf"the model has no '{missing}', expected some of mean32, std32, change32$"):
        make_detector("detr", gate=partial(Gate, DIM, inputs=inputs))


@pytest.mark.parametrize(
    ("strides", "message"),
    [
        ([8, 16], r"strides=\[8, 16\]: expected some of \[64, 32, 16, 8, 4\], coarsest first"),
        ([128, 64], r"strides=\[128, 64\]: expected some of"),
        ([], r"strides=\[\]: expected some of"),
        ([32, 16], r"strides=\[32, 16\]: the encoder has 4 active levels"),
    ],
)
def test_wrong_strides(strides: list[int], message: str) -> None:
    """Others than there are, in another order, or too few for the encoder."""
    encoder = Encoder([0, 0, 0, 1], DIM, 4, num_levels=4)
    with pytest.raises(ValueError, match=message):
        DetectionNeck({4: 4, 8: 8, 16: 16, 32: 32}, encoder, DIM, strides)


def test_a_stage_that_nothing_reads_is_named() -> None:
    """It costs time and does not learn; a backbone that ends before it does without."""
    encoder = Encoder([0, 1], DIM, 4, num_levels=2)
    with pytest.warns(UserWarning, match=r"strides=\[16, 8\]: the backbone's stride 32 is computed for nothing"):
        DetectionNeck({4: 4, 8: 8, 16: 16, 32: 32}, encoder, DIM, [16, 8])
    with warnings.catch_warnings(action="error"):
        DetectionNeck({4: 4, 8: 8, 16: 16}, encoder, DIM, [16, 8])


def test_every_weight_learns(images: Tensor) -> None:
    """From all levels of the last exit: DDP waits for a gradient of every parameter."""
    for kind in KINDS:
        detector = make_detector(kind, exits=None).train()
        for parameter in detector.pixel_decoder.encoder.parameters():  # new layers sample the same places everywhere
            torch.nn.init.normal_(parameter, std=0.1)
        ((memory, _, _),) = next(iter(detector(images, sizes=[SIZE, (64, 100)]).values()))
        sum(level.square().sum() for level in memory.levels).backward()
        learning = {name: one for name, one in detector.pixel_decoder.named_parameters() if one.requires_grad}
        assert [name for name, one in learning.items() if one.grad is None or not one.grad.any()] == []
