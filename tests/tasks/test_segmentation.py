"""The task in training: steps that are not finite, and images without anything in them."""

import inspect
from collections.abc import Callable
from typing import Any

import lightning
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from src.config.build import Experiment, build_run
from src.data.shapes import Shapes
from src.data.targets import Sample, collate
from tests.helpers import SMALL_MODEL, TINY_SHAPES

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


def fit(run: Experiment, *callbacks: lightning.Callback) -> dict[str, float]:
    """What is logged last; the callbacks act besides those of the run."""
    trainer: Any = run.trainer
    trainer.callbacks.extend(callbacks)
    trainer.fit(run.task, run.data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["gradient", "logits"])
def test_a_step_that_is_not_finite_is_counted_and_changes_nothing(
    what: str, configure: Callable[..., DictConfig]
) -> None:
    """Parameters before and after it are equal, those around finite steps are not; the log says how many there were."""
    run = build_run(configure(*SETTINGS, "trainer.max_steps=4"))
    poison = Poison(what, range(1, 3))
    assert fit(run, poison)["train/non_finite_steps"] == 2
    unchanged = [torch.equal(before, after) for before, after in zip(poison.after, poison.after[1:], strict=False)]
    assert unchanged == [False, True, True, False]
    assert all(parameters.isfinite().all() for parameters in poison.after)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["gradient", "logits"])
def test_training_stops_when_it_has_diverged(what: str, configure: Callable[..., DictConfig]) -> None:
    """After `patience` such steps in a row an error names what one may change."""
    run = build_run(configure(*SETTINGS, "trainer.max_steps=9", "task.patience=3"))
    poison = Poison(what, range(2, 9))
    with pytest.raises(FloatingPointError, match=r"last 3 steps.*learning rate .*batch 2, precision 32-true"):
        fit(run, poison)
    assert len(poison.after) == 1 + 4  # the last of five steps did not end


@pytest.mark.slow
def test_steps_that_are_not_finite_now_and_then_are_borne(configure: Callable[..., DictConfig]) -> None:
    """The patience is for steps in a row."""
    run = build_run(configure(*SETTINGS, "trainer.max_steps=6", "task.patience=2"))
    assert fit(run, Poison("gradient", range(0, 6, 2)))["train/non_finite_steps"] == 3


def test_a_learning_rate_far_too_high_is_named(configure: Callable[..., DictConfig]) -> None:
    """The message has the rate that was set."""
    run = build_run(configure(*SETTINGS, "trainer.max_steps=8", "task.patience=3", "lr=1e20"))
    with pytest.raises(FloatingPointError, match=r"learning rate \d\.?\d*e\+(19|20)"):
        fit(run)


@pytest.mark.parametrize("every", [1, 2])
def test_images_without_any_target_train(every: int, configure: Callable[..., DictConfig]) -> None:
    """Steps on scenes that hold nothing, alone or beside others, are finite."""
    run = build_run(configure(*SETTINGS, "trainer.max_steps=2"))
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


PARENT = ["+experiment=eco_parent_shapes", *TINY_SHAPES, *SMALL_MODEL, "image_size=[64,64]", "callbacks=[]"]


class Watch(lightning.Callback):
    """Keeps the exits and the loss of every step, and the gradient of every encoder layer."""

    def __init__(self) -> None:
        self.exits: list[list[int]] = []
        self.gradients: list[list[float]] = []

    def on_fit_start(self, trainer: lightning.Trainer, task: Any) -> None:
        draw = task.draw_exits

        def watched(step: int) -> list[int]:
            self.exits.append(draw(step))
            return self.exits[-1]

        task.draw_exits = watched

    def on_after_backward(self, trainer: lightning.Trainer, task: Any) -> None:
        layers = task.model.pixel_decoder.encoder.layers
        self.gradients.append([float(layer.linear1.weight.grad.abs().sum()) for layer in layers])


@pytest.mark.slow
def test_a_step_draws_one_exit_and_trains_the_layers_up_to_it(configure: Callable[..., DictConfig]) -> None:
    """Every exit comes up; layers beyond the one drawn have a gradient too, for processes wait for it, and it is 0."""
    run = build_run(configure(*PARENT, "trainer.max_steps=24", "validate_every=24"))
    fit(run, watch := Watch())
    assert {tuple(exits) for exits in watch.exits} == {(1,), (2,), (3,), (4,)}
    for (exit_,), gradients in zip(watch.exits, watch.gradients, strict=True):
        assert [gradient > 0 for gradient in gradients] == [depth <= exit_ for depth in range(1, 5)]


@pytest.mark.slow
def test_the_exit_of_a_step_does_not_depend_on_the_process(configure: Callable[..., DictConfig]) -> None:
    """It comes from seed and step; accumulated batches of one step share it."""
    run = build_run(configure(*PARENT, "trainer.max_steps=6", "batch_size=4", "batch_size_per_device=2"))
    torch.manual_seed(5)  # what a process draws otherwise
    fit(run, watch := Watch())
    assert watch.exits[::2] == watch.exits[1::2]
    again = build_run(configure(*PARENT, "trainer.max_steps=6"))
    fit(again, other := Watch())
    assert other.exits == watch.exits[::2]


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "weight"), [("1", 1.0), ("k", 3.0), ("k*k/10", 0.9)])
def test_an_exit_weighs_by_its_depth(alpha: str, weight: float, configure: Callable[..., DictConfig]) -> None:
    """The loss at exit 3 is that of weight 1 times alpha of 3."""
    losses = {}
    for one in ("1", alpha):
        run = build_run(configure(*PARENT, "exits=[3]", f"task.alpha={one}"))
        losses[one] = fit(run)["train/loss"]
    assert losses[alpha] == pytest.approx(weight * losses["1"], rel=1e-5)


@pytest.mark.slow
def test_all_exits_can_be_supervised_in_one_step(configure: Callable[..., DictConfig]) -> None:
    """Their weighted losses add, from one pass through the backbone."""
    run = build_run(configure(*PARENT, "task.exits_per_step=all", "task.alpha=1"))
    passes = []
    task: Any = run.task
    task.model.backbone.register_forward_hook(lambda *_: passes.append(run.trainer.training))
    loss = fit(run)["train/loss"]
    assert passes.count(True) == 1
    single = [fit(build_run(configure(*PARENT, f"exits=[{k}]", "task.alpha=1")))["train/loss"] for k in (1, 4)]
    assert 3 * min(single) < loss < 5 * max(single)


@pytest.mark.parametrize(
    "wrong",
    [
        *("task.exits_per_step=5", "task.exits_per_step=0", "task.alpha=2", "task.alpha=kk"),
        *("task.distil=-1", "task.distil=nan", "task.distil=.inf"),
    ],
)
def test_exits_and_weights_that_cannot_be_are_refused(wrong: str, configure: Callable[..., DictConfig]) -> None:
    """With the value and what was expected."""
    with pytest.raises((ValueError, InstantiationException), match="expected"):
        build_run(configure(*PARENT, wrong))


def test_a_single_exit_has_nothing_to_distil(configure: Callable[..., DictConfig]) -> None:
    """It is refused before training."""
    with pytest.raises(InstantiationException, match=r"task.distil=0.5: the model has the single exit 3, expected sev"):
        build_run(configure(*PARENT, "exits=[3]", "task.distil=0.5"))


def test_the_deepest_exit_teaches_in_every_step(configure: Callable[..., DictConfig]) -> None:
    """It joins the shallower ones that are drawn; all of them come up, and `all` is every exit once."""
    one: Any = build_run(configure(*PARENT, "task.distil=1")).task
    assert {tuple(one.draw_exits(step)) for step in range(40)} == {(1, 4), (2, 4), (3, 4)}
    one.num_drawn = 4
    assert one.draw_exits(0) == [1, 2, 3, 4]


def batch_of(run: Experiment) -> Any:
    data: Any = run.data
    return collate([data.val_scenes[place] for place in range(2)])


def losses_of(task: Any, batch: Any, step: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch and its parts, seeded as in training."""
    task.seed_step(step, 0, 0)
    loss, parts, _ = task.loss(batch, step)
    return loss, parts


def test_distillation_adds_to_the_loss_and_changes_nothing_else(configure: Callable[..., DictConfig]) -> None:
    """At weight 0 nothing of it runs; above, the supervised parts of the loss are equal to the bit."""
    run = build_run(configure(*PARENT, "task.exits_per_step=all", "task.alpha=k"))
    task: Any = run.task
    batch = batch_of(run)
    assert task.distillation is None
    plain, parts = losses_of(task, batch)
    weighted = [int(place.split("/")[1].removeprefix("exit")) * loss for place, loss in parts.items()]
    assert plain.item() == pytest.approx(sum(weighted).item(), rel=1e-5)  # type: ignore[attr-defined]
    task.distil, task.distillation = 0.5, task.criterion.distillation()
    more, with_distillation = losses_of(task, batch)
    added = with_distillation.keys() - parts.keys()
    assert {place.rpartition("/")[0] for place in added} == {
        f"distil_{part}/exit{depth}" for part in ("class", "mask") for depth in (1, 2, 3)
    }
    assert all(torch.equal(with_distillation[place], loss) for place, loss in parts.items())
    extra = sum(int(place.split("/")[1].removeprefix("exit")) * with_distillation[place].item() for place in added)
    assert (more - plain).item() == pytest.approx(0.5 * extra, rel=1e-3)


def distance(task: Any, batch: Any) -> float:
    """How far the last predictions of the exits are from those of the deepest one: mean difference of probabilities."""
    with torch.no_grad():
        *others, deepest = (layers[-1] for layers in task(batch.images).values())
    return sum(
        (one.class_logits.softmax(-1) - deepest.class_logits.softmax(-1)).abs().mean().item()
        + (one.mask_logits.sigmoid() - deepest.mask_logits.sigmoid()).abs().mean().item()
        for one in others
    )


@pytest.mark.slow
def test_distillation_brings_exits_closer_together(configure: Callable[..., DictConfig]) -> None:
    """After some steps on one batch, exits differ less than without."""
    distances = {}
    for weight in (0, 10):  # above what training uses: one batch differs by a tenth from run to run
        run = build_run(configure(*PARENT, "task.exits_per_step=all", "task.alpha=1", f"task.distil={weight}"))
        task: Any = run.task.train()
        batch, optimizer = batch_of(run), torch.optim.Adam(task.parameters(), 1e-3)
        for step in range(30):
            loss, _ = losses_of(task, batch, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        distances[weight] = distance(task.eval(), batch)
    assert distances[10] < 0.8 * distances[0]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["trainer.precision=bf16-mixed", "model.activation_checkpointing=true"]])
def test_a_parent_trains_with_distillation(more: list[str], configure: Callable[..., DictConfig]) -> None:
    """One exit drawn for each step and the deepest; both parts are logged, in half precision too."""
    run = build_run(configure(*PARENT, "task.distil=1", "trainer.max_steps=3", "batch_size_per_device=1", *more))
    scores = fit(run, watch := Watch())
    assert all(len(exits) == 2 and exits[1] == 4 for exits in watch.exits)
    assert all(gradient > 0 for gradients in watch.gradients for gradient in gradients)
    assert scores["train/distil_class"] > 0
    assert scores["train/distil_mask"] > 0
    assert scores["train/non_finite_steps"] == 0
