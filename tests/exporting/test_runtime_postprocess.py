"""Logits to segments without torch, against the post-processing of the project."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from src.exporting import runtime
from src.models import postprocess
from src.models.transformer_decoder import Prediction
from src.tasks.prediction import bounded, nearest

ISTHING = [True, False, True, False, True]
# padded, as it entered the network, original: larger, smaller, narrower, as it is
FRAMES = [
    ((64, 96), (64, 85), (120, 160)),
    ((64, 96), (50, 96), (31, 60)),
    ((32, 32), (17, 32), (17, 32)),
    ((96, 64), (96, 64), (1, 1)),
    ((64, 64), (64, 43), (201, 77)),
]
SETTINGS = {"object_threshold": 0.4, "overlap_threshold": 0.5, "num_instances": 30, "resize_last": False}


def logits(frame: Any, seed: int, queries: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits whose masks are patches, so that some queries win theirs."""
    torch.manual_seed(seed)
    height, width = (side // 4 for side in frame[0])
    owner = torch.randint(0, queries, (-(-height // 4), -(-width // 4))).repeat_interleave(4, 0).repeat_interleave(4, 1)
    masks = 8.0 * (owner[:height, :width] == torch.arange(queries)[:, None, None]) - 4
    return 3 * torch.randn(queries, len(ISTHING) + 1), masks + 2 * torch.randn(queries, height, width)


def ours(kind: str, classes: torch.Tensor, masks: torch.Tensor, frame: Any, **settings: Any) -> dict[str, Any]:
    manifest = {"segmentation": kind, "postprocess": SETTINGS | settings, "classes": [{"isthing": t} for t in ISTHING]}
    return runtime.Postprocess(manifest)(classes.numpy(), masks.numpy(), runtime.Frame(*frame))


def theirs(classes: torch.Tensor, masks: torch.Tensor, frame: Any) -> tuple[Any, Prediction, Any]:
    names = ("object_threshold", "overlap_threshold", "num_instances")
    made = postprocess.Postprocess(ISTHING, **{name: SETTINGS[name] for name in names})
    return made, Prediction(classes[None], masks[None]), postprocess.Frame(*frame)


@pytest.fixture(params=[runtime.BAND, 2**13], ids=["at once", "in bands"], autouse=True)
def band(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are processed whole, or a few rows at a time."""
    monkeypatch.setattr(runtime, "BAND", request.param)


@pytest.mark.parametrize("frame", FRAMES)
def test_logits_are_resized_as_torch_does(frame: Any) -> None:
    """Twice, with the padding cut off in between, up to the rounding of sums."""
    _, masks = logits(frame, 0, 3)
    expected = postprocess.Frame(*frame).undo(masks)
    made = np.concatenate([band for _, band in runtime.bands(masks.numpy(), runtime.Frame(*frame))], 1)
    np.testing.assert_allclose(made, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("old", "new"), [(7, 28), (28, 7), (100, 133), (1333, 640), (3, 3), (1, 9), (336, 1344)])
def test_an_axis_is_resized_as_torch_does(old: int, new: int) -> None:
    """Weights are those of `interpolate` in single precision."""
    torch.manual_seed(0)
    rows = torch.randn(old, 4)
    expected = F.interpolate(rows.T[None], new, mode="linear", align_corners=False)[0].T
    np.testing.assert_allclose(runtime.linear(rows.numpy(), new), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("seed", range(3))
def test_panoptic_segmentation_answers_alike(frame: Any, seed: int) -> None:
    """Equal segments, classes and instances; scores to rounding."""
    classes, masks = logits(frame, seed)
    post, prediction, place = theirs(classes, masks, frame)
    made = ours("panoptic", classes, masks, frame)
    panoptic = post.panoptic(prediction, 0, place)
    assert np.array_equal(made["panoptic"].ids, panoptic.ids)
    assert np.array_equal(made["panoptic"].labels, panoptic.labels)
    assert made["panoptic"].scores == pytest.approx(panoptic.scores.numpy(), abs=1e-6)
    assert np.array_equal(made["semantic"], post.semantic(prediction, 0, place))
    assert same_instances(made["instances"], post.instances(prediction, 0, place)) > 0


@pytest.mark.parametrize("frame", FRAMES)
def test_instance_segmentation_answers_alike(frame: Any) -> None:
    """The same set of masks, classes and scores, the best first."""
    classes, masks = logits(frame, 7)
    post, prediction, place = theirs(classes, masks, frame)
    made = ours("instance", classes, masks, frame)
    assert same_instances(made["instances"], post.instances(prediction, 0, place)) > 0
    assert (np.diff(made["instances"].scores) <= 0).all()
    assert made["panoptic"] is None
    assert made["semantic"] is None


def same_instances(mine: runtime.Instances, theirs: Any) -> int:
    """Refuse instances that differ; return how many there are."""
    order = theirs.scores.argsort(descending=True, stable=True)
    assert mine.scores == pytest.approx(theirs.scores[order].numpy(), abs=1e-5)
    found = sorted((int(label), mask.tobytes()) for label, mask in zip(mine.labels, mine.masks, strict=True))
    expected = sorted(
        (int(label), mask.numpy().tobytes()) for label, mask in zip(theirs.labels, theirs.masks, strict=True)
    )
    assert found == expected
    return len(found)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("resize_last", [False, True])
def test_semantic_segmentation_answers_alike(frame: Any, resize_last: bool) -> None:
    """Where masks are resized before their sums, and where the sums are."""
    classes, masks = logits(frame, 3)
    post, prediction, place = theirs(classes, masks, frame)
    made = ours("semantic", classes, masks, frame, resize_last=resize_last)["semantic"]
    assert np.array_equal(made, post.semantic(prediction, 0, place, resize_last))


def test_nothing_found_is_an_empty_map() -> None:
    """If no query is sure enough of a class."""
    classes, masks = logits(FRAMES[0], 0)
    made = ours("panoptic", classes, masks, FRAMES[0], object_threshold=1.0)["panoptic"]
    assert not made.ids.any()
    assert len(made.labels) == len(made.scores) == 0


@pytest.mark.parametrize("size", [(480, 640), (3000, 4000), (1, 5_000_000), (2500, 1601)])
def test_maps_of_large_photos_are_bounded_and_enlarged_alike(size: tuple[int, int]) -> None:
    """To the same size, and by the same neighbour."""
    small = bounded(size, runtime.MAX_PIXELS)
    assert list(runtime.bounded(size)) == small
    for old, new in zip(small, size, strict=True):
        line = torch.arange(old)[None]
        assert np.array_equal(runtime.enlarge(line.numpy(), (1, new)), nearest(line, (1, new)))
