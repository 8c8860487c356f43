"""Arguments of Lightning's classes work, or are refused with what to use instead."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import lightning
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from src.config.build import build_run
from src.config.schema import check_settings
from src.config.unsupported import CHECKPOINT, CHECKPOINT_OF_A_STREAM, OF_A_STREAM, TRAINER
from tests.helpers import ROOT, SMALL_MODEL, TINY_SHAPES

REFUSED = {
    "+trainer.val_check_interval=100": "validate_every",
    "+trainer.accumulate_grad_batches=2": "batch_size_per_device",
    "+trainer.max_epochs=2": "trainer.max_steps",
    "trainer.min_epochs=2": "trainer.min_steps",
    "+trainer.limit_train_batches=0.5": "trainer.max_steps",
    "+trainer.check_val_every_n_epoch=2": "validate_every",
    "+trainer.gradient_clip_algorithm=value": "norm",
    "+trainer.overfit_batches=1": "data.train.num_scenes",
    "+trainer.fast_dev_run=true": "trainer.max_steps=1",
    "+trainer.logger=false": "logger=",
    "+trainer.callbacks=null": "callbacks=[default,ema]",
    "+trainer.callbacks=[]": "callbacks=[default,ema]",
    "+trainer.default_root_dir=/tmp": "hydra.run.dir",
    "trainer.use_distributed_sampler=true": "false",
    "trainer.precision=bf16-true": "32-true, bf16-mixed, 16-mixed",
    "trainer.precision=64": "32-true, bf16-mixed, 16-mixed",
    "trainer.precision=transformer-engine": "32-true, bf16-mixed, 16-mixed",
    "trainer.strategy=ddp_spawn": "auto, ddp,",
    "trainer.strategy={_target_:lightning.pytorch.strategies.FSDPStrategy}": "auto, ddp,",
    "+trainer.plugins=[{_target_:lightning.pytorch.plugins.io.AsyncCheckpointIO}]": "trainer.precision",
    "+callbacks.checkpoint.save_last=true": "callbacks.last",
    "+callbacks.checkpoint.train_time_interval=10": "every_n_train_steps",
    "+callbacks.checkpoint.every_n_epochs=2": "every_n_train_steps",
    "+callbacks.checkpoint.verbose=true": "false",
}
TAKEN = [
    "+trainer.gradient_clip_algorithm=norm",
    "+trainer.accumulate_grad_batches=1",
    "+trainer.min_steps=2",
    "+trainer.max_time=00:00:00:10",
    "trainer.precision=bf16-mixed",
    "trainer.strategy=ddp",
    "trainer.strategy={_target_:lightning.pytorch.strategies.DDPStrategy,find_unused_parameters:true}",
    "+callbacks.checkpoint.every_n_train_steps=2",
    "+callbacks.checkpoint.save_last=false",
]


def settings(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg)


@pytest.mark.parametrize("override", REFUSED)
def test_what_would_be_ignored_is_refused(override: str, configure: Callable[..., DictConfig]) -> None:
    """With its name and value, and the setting to use."""
    name, value = override.lstrip("+").split("=", 1)
    with pytest.raises(ValueError, match=re.escape(name)) as found:
        check_settings(settings(configure(override)))
    said = str(found.value)
    assert ": not taken here; use " in said
    assert REFUSED[override] in said.split("; use ")[1]
    assert value[0] in "{[" or f"={value}:" in said


@pytest.mark.parametrize("override", TAKEN)
def test_values_that_change_nothing_or_work_are_taken(override: str, configure: Callable[..., DictConfig]) -> None:
    """Those of the same arguments too."""
    check_settings(settings(configure(override)))


def test_gates_are_trained_by_epochs(configure: Callable[..., DictConfig]) -> None:
    """An exit table has epochs, unlike the stream of images."""
    check_settings(settings(configure("+experiment=eco_gate_shapes", "data.table=x", "trainer.max_epochs=3")))


@pytest.mark.parametrize(
    ("owner", "table"),
    [(lightning.Trainer, TRAINER | OF_A_STREAM), (ModelCheckpoint, CHECKPOINT | CHECKPOINT_OF_A_STREAM)],
)
def test_every_argument_is_in_the_documentation(owner: type, table: dict[str, Any]) -> None:
    """Once, as refused where the code refuses it: one that a new version brings is to be settled."""
    section = (ROOT / "docs/trainer.md").read_text().split(f"`{owner.__name__}`")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+)", section, re.MULTILINE))
    assert sorted(rows) == sorted(inspect.signature(owner).parameters)
    assert {name for name, how in rows.items() if how == "refused"} == set(table)


def test_a_precision_that_would_be_another_is_refused(configure: Callable[..., DictConfig]) -> None:
    """A CPU has no half precision."""
    with pytest.raises(ValueError, match=r"trainer.precision=16-mixed: .*expected bf16-mixed"):
        build_run(configure("+experiment=proscale_shapes", *TINY_SHAPES, "trainer.precision=16-mixed"))


def test_nothing_is_saved_without_a_callback_that_saves(configure: Callable[..., DictConfig]) -> None:
    """Nor is a learning rate watched for no logger."""
    without = ["~callbacks.checkpoint", "~callbacks.last", "~logger"]
    trainer = build_run(configure("+experiment=proscale_shapes", *TINY_SHAPES, *without)).trainer
    assert trainer.checkpoint_callbacks == []
    assert trainer.loggers == []


@pytest.mark.slow
def test_early_stopping_waits_for_min_steps_and_no_longer(configure: Callable[..., DictConfig]) -> None:
    """Though training on images is one epoch, which ends with the run."""
    stop = (
        "+callbacks.stop={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val/quality,mode:min,patience:1}"
    )
    steps = ["trainer.max_steps=5", "+trainer.min_steps=3", "task.postprocess.object_threshold=1.0"]  # quality stays 0
    task, data, trainer = build_run(configure("+experiment=proscale_shapes", *TINY_SHAPES, *SMALL_MODEL, *steps, stop))
    trainer.fit(task, data)
    assert trainer.global_step == 3
