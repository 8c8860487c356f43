"""What checkpoints and early stopping go by is what a validation logs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from src.config.build import build_run
from tests.helpers import SMALL_MODEL, TINY_SHAPES
from tests.tables import write_table

SETTINGS = ["+experiment=proscale_shapes", *TINY_SHAPES, *SMALL_MODEL, "image_size=[64,64]"]
EARLY = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/pqq, mode: max}"
SECOND = "{_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: '${paths.run}/checkpoints', filename: best}"


def fit(cfg: DictConfig) -> tuple[Any, Any]:
    task, data, trainer = build_run(cfg)
    trainer.fit(task, data, ckpt_path=cfg.ckpt_path, weights_only=True)
    return task, trainer


@pytest.mark.slow
@pytest.mark.parametrize("segmentation", ["panoptic", "instance", "semantic"])
def test_the_names_of_scores_are_those_that_are_logged(segmentation: str, configure: Callable[..., DictConfig]) -> None:
    """By every exit; a score of a size that no object has is nan, and logged all the same."""
    task, trainer = fit(configure(*SETTINGS, "exits=[1,2]", "schedule=[0,0,2]", f"segmentation={segmentation}"))
    assert {name for name in trainer.callback_metrics if name.startswith("val/")} == {
        name for name in task.score_names() if name.startswith("val/")
    }
    assert set(task.score_names()) <= set(trainer.callback_metrics)


def test_those_of_a_gate_too(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """Of what others would choose, too."""
    table = write_table(tmp_path / "table", num_images=200)
    gate = ["+experiment=eco_gate_coco", f"data.table={table}", "trainer.max_epochs=1", "batch_size=50"]
    task, trainer = fit(configure(*gate, "trainer.enable_progress_bar=false"))
    assert {name for name in trainer.callback_metrics if name.startswith("val/")} == {
        name for name in task.score_names() if name.startswith("val/")
    }


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["callbacks.checkpoint.monitor=val/pqq"], "monitor=val/pqq of BestCheckpoint: no score is called so, did you"),
        ([EARLY, "~callbacks.checkpoint"], "monitor=val/pqq of EarlyStopping: no score is called so, did you mean"),
        (
            [f"+callbacks.second={SECOND}"],
            r"BestCheckpoint \(monitor=val/quality\) and ModelCheckpoint \(monitor=None\)",
        ),
    ],
)
def test_what_cannot_be_gone_by_is_refused_before_training(
    typed: list[str], said: str, configure: Callable[..., DictConfig]
) -> None:
    """With the closest score first, or with both that would write a file."""
    with pytest.raises(ValueError, match=said):
        build_run(configure(*SETTINGS, *typed))


@pytest.mark.slow
def test_a_run_that_goes_on_elsewhere_keeps_the_best(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """Its file is there with its score, so that a worse one does not take its place."""
    settings = [*SETTINGS, "task.scheduler.total_iters=4", "validate_every=1"]
    _, first = fit(configure(*settings, "trainer.max_steps=2", f"paths.run={tmp_path / 'first'}"))
    best = first.checkpoint_callback
    best.best_k_models = dict.fromkeys(best.best_k_models, torch.tensor(99.0))  # that no training here reaches
    first.save_checkpoint(tmp_path / "first/checkpoints/last.ckpt")
    last = f"ckpt_path={tmp_path / 'first/checkpoints/last.ckpt'}"
    _, second = fit(configure(*settings, "trainer.max_steps=4", f"paths.run={tmp_path / 'second'}", last))
    assert second.checkpoint_callback.best_model_path == str(tmp_path / "second/checkpoints/best.ckpt")
    files = [tmp_path / name / "checkpoints/best.ckpt" for name in ("first", "second")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_without_validations_none_is_the_best(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """The last checkpoint is there alone."""
    fit(configure(*SETTINGS, "trainer.limit_val_batches=0", "trainer.max_steps=2"))
    assert [file.name for file in (tmp_path / "run/checkpoints").iterdir()] == ["last.ckpt"]
