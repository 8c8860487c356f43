"""The task in training: steps that are not finite, and images without anything in them."""

import inspect
from collections.abc import Callable
from typing import Any

import lightning
import pytest
import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from src.compose import Run, compose
from src.data.shapes import Shapes
from src.data.targets import Sample
from tests.conftest import TINY_SHAPES
from tests.test_experiments import SMALL_MODEL

SETTINGS = [
    "+experiment=proscale_shapes",
    *TINY_SHAPES,
    *SMALL_MODEL,
    "image_size=[64,64]",
    "callbacks=[]",
    "num_queries=20",
]
NAN = float("nan")


class Poison(lightning.Callback):
    """Spoils some steps and keeps the parameters as they are after every step.

    Args:
        what: "gradient" of one parameter, or "logits" of one query's mask, so that nothing can be matched with it.
    """

    def __init__(self, what: str, steps: range):
        self.what, self.steps = what, steps
        self.after: list[Tensor] = []

    def on_fit_start(self, trainer: lightning.Trainer, task: Any) -> None:
        self.after.append(flat(task))
        task.model.decoder.register_forward_hook(
            lambda module, inputs, outputs: self.spoil(trainer, "logits", outputs[-1].mask_logits)
        )

    def on_after_backward(self, trainer: lightning.Trainer, task: Any) -> None:
        self.spoil(trainer, "gradient", task.model.decoder.norm.weight.grad[None])

    def on_train_batch_end(self, trainer: lightning.Trainer, task: Any, *args: Any) -> None:
        self.after.append(flat(task))

    def spoil(self, trainer: lightning.Trainer, what: str, values: Tensor) -> None:
        """Make a row NaN, in place, if it is time."""
        if what == self.what and trainer.training and trainer.global_step in self.steps:
            values.data[0, :1] = NAN


class Nothing(Shapes):
    """Scenes of which every `every`-th has no annotation."""

    def __init__(self, every: int):
        super().__init__(8, size=64)
        self.every = every

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        keep = torch.full(sample.truth.labels.shape, index % self.every != 0)
        return sample._replace(truth=sample.truth.select(keep))


def flat(task: Any) -> Tensor:
    """A copy of all parameters in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in task.parameters()])


def fit(run: Run, *callbacks: lightning.Callback) -> dict[str, float]:
    """What is logged last; the callbacks act besides those of the run."""
    trainer: Any = run.trainer
    trainer.callbacks.extend(callbacks)
    trainer.fit(run.task, run.data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("what", ["gradient", "logits"])
def test_a_step_that_is_not_finite_is_counted_and_changes_nothing(
    what: str, configure: Callable[..., DictConfig]
) -> None:
    """Parameters before and after it are equal, those around finite steps are not; the log says how many there were."""
    run = compose(configure(*SETTINGS, "trainer.max_steps=4"))
    poison = Poison(what, range(1, 3))
    assert fit(run, poison)["train/non_finite_steps"] == 2
    unchanged = [torch.equal(before, after) for before, after in zip(poison.after, poison.after[1:], strict=False)]
    assert unchanged == [False, True, True, False]
    assert all(parameters.isfinite().all() for parameters in poison.after)


@pytest.mark.parametrize("what", ["gradient", "logits"])
def test_training_stops_when_it_has_diverged(what: str, configure: Callable[..., DictConfig]) -> None:
    """After `patience` such steps in a row an error names what one may change."""
    run = compose(configure(*SETTINGS, "trainer.max_steps=9", "task.patience=3"))
    poison = Poison(what, range(2, 9))
    with pytest.raises(FloatingPointError, match=r"last 3 steps.*learning rate .*batch 2, precision 32-true"):
        fit(run, poison)
    assert len(poison.after) == 1 + 4  # the last of five steps did not end


def test_steps_that_are_not_finite_now_and_then_are_borne(configure: Callable[..., DictConfig]) -> None:
    """The patience is for steps in a row."""
    run = compose(configure(*SETTINGS, "trainer.max_steps=6", "task.patience=2"))
    assert fit(run, Poison("gradient", range(0, 6, 2)))["train/non_finite_steps"] == 3


def test_a_learning_rate_far_too_high_is_named(configure: Callable[..., DictConfig]) -> None:
    """The message has the rate that was set."""
    run = compose(configure(*SETTINGS, "trainer.max_steps=8", "task.patience=3", "lr=1e20"))
    with pytest.raises(FloatingPointError, match=r"learning rate \d\.?\d*e\+(19|20)"):
        fit(run)


@pytest.mark.parametrize("every", [1, 2])
def test_images_without_any_target_train(every: int, configure: Callable[..., DictConfig]) -> None:
    """Steps on scenes that hold nothing, alone or beside others, are finite."""
    run = compose(configure(*SETTINGS, "trainer.max_steps=2"))
    data: Any = run.data
    data.train = lambda: Nothing(every)
    scores = fit(run)
    assert scores["train/non_finite_steps"] == 0
    assert 0 < scores["train/loss"] < float("inf")


@pytest.mark.parametrize("part", ["criterion", "criterion.matcher", "postprocess"])
def test_numbers_with_two_homes_agree(part: str, configure: Callable[..., DictConfig]) -> None:
    """The constants of the published recipe are in conf/ what they are where nothing is configured."""
    settings = OmegaConf.select(configure().task, part)
    for name, parameter in inspect.signature(get_class(settings["_target_"])).parameters.items():
        if parameter.default is not parameter.empty:
            assert settings[name] == parameter.default, name
