"""Self-distillation between two exits."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from src.losses.criterion import SetCriterion
from src.losses.distillation import Distillation
from src.losses.matcher import HungarianMatcher
from src.models.transformer_decoder import Prediction

NUM_POINTS = 16


def make_predictions(seed: int, layers: int = 2, dtype: torch.dtype = torch.float32) -> list[Prediction]:
    """Two images, five queries, three classes, masks of 6 x 7."""
    chance = torch.Generator().manual_seed(seed)
    return [
        Prediction(
            (2 * torch.randn(2, 5, 4, generator=chance)).to(dtype).requires_grad_(),
            (3 * torch.randn(2, 5, 6, 7, generator=chance)).to(dtype).requires_grad_(),
        )
        for _ in range(layers)
    ]


def make_distillation() -> Distillation:
    return Distillation(SetCriterion(3, HungarianMatcher(), num_points=NUM_POINTS))


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def gradients(predictions: list[Prediction]) -> list[Tensor | None]:
    return [logits.grad for prediction in predictions for logits in prediction]


def test_exits_that_agree_have_nothing_to_learn() -> None:
    """Equal predictions have no divergence, and no gradient."""
    students = make_predictions(0)
    losses = make_distillation()(students, make_predictions(0))
    total(losses).backward()
    assert list(losses) == [f"distil_{part}/layer{layer}" for layer in (0, 1) for part in ("class", "mask")]
    assert all(abs(loss.item()) < 1e-6 for loss in losses.values())
    for gradient in gradients(students):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)


def test_the_teacher_learns_nothing() -> None:
    """Gradients reach every student's logits and none of the teacher's, although both come from one parameter."""
    students, teachers = make_predictions(0), make_predictions(1)
    losses = make_distillation()(students, teachers)
    assert all(loss > 0 for loss in losses.values())
    total(losses).backward()
    assert all(gradient is not None and gradient.any() for gradient in gradients(students))
    assert gradients(teachers) == [None] * 4


def slow_losses(student: Prediction, teacher: Prediction, points: Tensor) -> tuple[float, float]:
    """Class and mask divergence of one layer, one query and one point after the other."""

    def divergence(teacher: list[float], student: list[float]) -> float:
        return sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))

    classes = masks = class_weights = mask_weights = 0.0
    for image in range(2):
        grid = 2 * points[image][None, None] - 1
        values = [F.grid_sample(maps.mask_logits[image][None], grid)[0, :, 0] for maps in (teacher, student)]  # (Q, P)
        for query in range(5):
            p, q = (one.class_logits[image, query].softmax(0).tolist() for one in (teacher, student))
            weight = sum(p[:3]) + 0.1 * p[3]
            class_weights += weight
            classes += weight * divergence(p, q)
            mask_weights += sum(p[:3])
            for point in range(NUM_POINTS):
                t, s = (value[query, point].sigmoid().item() for value in values)
                masks += sum(p[:3]) * divergence([t, 1 - t], [s, 1 - s]) / NUM_POINTS
    return 2 * classes / class_weights, 5 * masks / mask_weights


@pytest.mark.filterwarnings("ignore:Default grid_sample")
def test_the_losses_are_those_of_a_slow_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divergences of classes and of masks at points, weighed by class and by what the teacher takes for objects."""
    points = torch.rand(2, NUM_POINTS, 2, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(torch, "rand", lambda *shape, device: points)
    students, teachers = make_predictions(0), make_predictions(1)
    losses = make_distillation()(students, teachers)
    for layer, pair in enumerate(zip(students, teachers, strict=True)):
        found = [losses[f"distil_{part}/layer{layer}"].item() for part in ("class", "mask")]
        assert found == pytest.approx(slow_losses(*pair, points), rel=1e-4)


def test_queries_without_an_object_do_not_dominate_the_masks() -> None:
    """What the teacher takes for no object hardly counts, however far its masks are apart."""
    losses = []
    for shift in (0.0, 20.0):
        students, teachers = make_predictions(0, layers=1), make_predictions(1, layers=1)
        with torch.no_grad():
            teachers[0].class_logits[:, 1:, 3] = 15  # sure that four of five are nothing
            students[0].mask_logits[:, 1:] += shift
        torch.manual_seed(0)
        losses.append(make_distillation()(students, teachers)["distil_mask/layer0"].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_predictions_are_compared_in_float32(dtype: torch.dtype) -> None:
    """Logits in half precision give float32 losses."""
    losses = make_distillation()(make_predictions(0, dtype=dtype), make_predictions(1, dtype=dtype))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
