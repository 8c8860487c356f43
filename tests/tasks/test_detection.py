"""Detectors in the tasks that segmentation has: training, labels, predictions and costs, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from src.config.build import Experiment, build_run
from src.config.command_line import check
from src.data.targets import Batch, collate
from src.data.transforms import ResizeShortestEdge
from src.metrics.cost import count
from src.models.postprocess import Frame
from src.tasks.batches import mirror
from src.tasks.prediction import PredictionTask
from tests.helpers import SMALL_MODEL, TINY_SHAPES, error_line

TINY = [one for one in TINY_SHAPES if not one.startswith("task.criterion.num_points")]  # of masks
SETTINGS = [*TINY, *SMALL_MODEL, "dim=64", "callbacks=[]", "image_size=[64,64]"]
Configure = Callable[..., DictConfig]


def made(configure: Configure, experiment: str, *settings: str) -> Experiment:
    return build_run(configure(f"+experiment={experiment}", *SETTINGS, *settings))


def scenes(run: Experiment, places: range) -> Batch:
    data: Any = run.data
    return collate([data.val_scenes[place] for place in places])


@pytest.mark.parametrize("experiment", ["detr_shapes", "deformable_detr_shapes", "dino_shapes"])
def test_every_weight_learns_from_images_of_two_sizes(experiment: str, configure: Configure) -> None:
    """The loss is the sum of its parts, and its gradient reaches all trainable weights that a level is made of.

    The small DETR reads stride 16 alone, so the last stage of its backbone computes nothing that is used.
    """
    run = made(configure, experiment)
    task: Any = run.task
    batch = scenes(run, range(2))
    small, truth = batch.images[1][:, :48], batch.truths[1]
    batch.images[1], batch.truths[1] = small, truth._replace(segments=truth.segments[:, :48])
    truths = [truth.for_task(task.categories, "boxes") for truth in batch.truths]
    total, parts, num_bad = task.loss(batch._replace(truths=truths), 0)
    assert num_bad == 0
    assert {place.split("/")[0] for place in parts} == {"class", "box", "giou"}
    assert float(total.detach()) == pytest.approx(sum(part.item() for part in parts.values()), rel=1e-5)
    total.backward()
    unused = "model.backbone.body.layer4." if experiment == "detr_shapes" else "none"
    untouched = [name for name, weight in task.named_parameters() if weight.requires_grad and weight.grad is None]
    assert [name for name in untouched if not name.startswith(unused)] == []


@pytest.mark.parametrize("quality", ["score", "loss"])
@pytest.mark.parametrize("experiment", ["eco_oracle_detr_shapes", "eco_oracle_dino_shapes"])
def test_the_oracle_labels_boxes(experiment: str, quality: str, configure: Configure) -> None:
    """Qualities are those of each exit by itself, costs grow with depth, and mirrored images are labelled too."""
    run = made(configure, experiment, f"task.quality={quality}")
    task: Any = run.task.eval()
    batch = scenes(run, range(2))
    with torch.no_grad():
        labels, mirrored = task.predict_step(batch, 0), task.predict_step(mirror(batch), 0)
        by_exit = task.model(task.model.preprocess(batch.images), last_only=True)
    assert labels["quality"].shape == (2, len(task.model.exits))
    assert (labels["cost"].diff(dim=1) > 0).all()
    frame = Frame((64, 64), (64, 64), (64, 64))
    for column, (prediction,) in enumerate(by_exit.values()):
        expected = [task.quality_of(prediction, row, frame, batch.truths[row]) for row in range(2)]
        torch.testing.assert_close(labels["quality"][:, column], torch.tensor(expected), atol=1e-5, rtol=1e-4)
    assert mirrored["quality"].shape == labels["quality"].shape
    if quality == "loss":
        assert (labels["quality"] < 0).all()
        assert not torch.equal(mirrored["quality"], labels["quality"])


def predicting(configure: Configure, **settings: Any) -> PredictionTask:
    """A small DETR that predicts."""
    cfg = configure("+experiment=detr_shapes", *SETTINGS)
    task: Any = build_run(cfg).task
    others = {"model": lambda num_classes: task.model, "categories": task.categories, "segmentation": "boxes"}
    post = type(task.evaluation.postprocess)
    return PredictionTask(resize=ResizeShortestEdge(64, 64), postprocess=post, **others, **settings).eval()


def test_boxes_are_in_pixels_of_the_image_however_large(configure: Configure) -> None:
    """An image is seen at one size; boxes scale with the original, beyond `max_pixels` too, and stay in it."""
    task = predicting(configure, max_pixels=1000)
    image = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)
    small, large = (
        task.whole(task.segment([one])[0]) for one in (image, image.repeat_interleave(2, 1).repeat_interleave(2, 2))
    )
    assert small.boxes is not None
    assert large.boxes is not None
    assert float(small.boxes.boxes.max()) > 32
    torch.testing.assert_close(large.boxes.boxes, 2 * small.boxes.boxes, atol=2, rtol=0.05)
    assert (large.panoptic, large.instances, large.semantic) == (None, None, None)


@pytest.mark.parametrize("views", [{"mirror": True}, {"scales": [0.5, 1.0]}])
def test_several_views_are_for_masks(views: dict[str, Any], configure: Configure) -> None:
    """It is said before anything is predicted."""
    with pytest.raises(
        ValueError, match=r"several views are merged by their masks.*expected one scale and mirror=false"
    ):
        predicting(configure, **views)


def test_attention_of_all_tokens_costs_what_its_formula_says(configure: Configure) -> None:
    """N (4 d^2 + 2 N d + 2 d f) + 10 d N for N tokens: both products of plain attention are in the total."""
    task: Any = made(configure, "detr_shapes").task
    (cost,) = count(task.model, (64, 96), segmentation="boxes").values()
    tokens, dim, hidden = 4 * 6, 64, 128
    expected = tokens * (4 * dim**2 + 2 * tokens * dim + 2 * dim * hidden + 10 * dim)
    assert [1e9 * layer for layer in cost.layers] == pytest.approx([expected] * 3, abs=0.5)
    assert (cost.sampling, cost.query_key_product, cost.postprocessing, cost.mask_convolution) == (0, 0, 0, 0)
    assert cost.decoder > 0


def test_sampling_in_a_decoder_is_beside_the_total(configure: Configure) -> None:
    """That of Deformable DETR's decoder is added to the encoder's, and no sum has it."""
    task: Any = made(configure, "deformable_detr_shapes").task
    costs = [count(task.model, (64, 64), [depth], segmentation="boxes")[depth] for depth in (1, 2)]
    one_layer = costs[1].sampling - costs[0].sampling
    assert costs[0].sampling > one_layer > 0
    assert costs[0].total == pytest.approx(costs[0].backbone + costs[0].pixel_decoder + costs[0].decoder)


@pytest.mark.parametrize(
    ("experiment", "setting", "message"),
    [
        ("detr_shapes", "segmentation=instance", "BoxPostprocess gives no instances"),
        ("eco_parent_detr_shapes", "task.distil=1", r"task.distil: .*expected task.distil=0"),
        ("eco_oracle_dino_shapes", "task.inputs=[first_masks]", "the model has no 'first_masks'"),
        ("eco_oracle_detr_shapes", "task.inputs=[mean32]", "the model has no 'mean32'"),
    ],
)
def test_what_detectors_do_not_have_is_refused(
    experiment: str, setting: str, message: str, configure: Configure
) -> None:
    """In one line that names it."""
    with pytest.raises((ValueError, InstantiationException), match=message):
        made(configure, experiment, setting)


def test_variants_of_masks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A part that the model does not have is named, and who set it."""
    line = error_line(capsys, lambda: check(["+experiment=dino_shapes", "variant=lite"]))
    assert "variant=lite: this model has no pixel_embedding to choose" in line
