"""Loggers beside CSV hear of the same scores by the same names."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from src.config.build import build_run
from src.loggers import hparams
from tests.helpers import SMALL_MODEL, TINY_SHAPES

SETTINGS = ["+experiment=proscale_shapes", *TINY_SHAPES, *SMALL_MODEL, "image_size=[64,64]", "trainer.max_steps=2"]


def fit(cfg: DictConfig) -> None:
    task, data, trainer = build_run(cfg)
    trainer.fit(task, data)


def scores(run: Path) -> dict[str, float]:
    """The last value of every score in metrics.csv."""
    found: dict[str, float] = {}
    with open(run / "metrics.csv") as file:
        for row in csv.DictReader(file):
            found |= {name: float(value) for name, value in row.items() if value and name.startswith("val/")}
    return found


def test_tensorboard_has_the_scores(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """In the run folder, with the settings."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(configure(*SETTINGS, "logger=tensorboard"))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    names = {name for name in events.Tags()["scalars"] if name.startswith("val/")}
    expected = scores(tmp_path / "run")
    assert names >= set(expected)
    assert events.Scalars("val/quality")[-1].value == pytest.approx(expected["val/quality"], rel=1e-5)
    assert "settings/config/text_summary" in events.Tags()["tensors"]


def test_mlflow_has_the_scores_and_goes_on_in_its_run(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """In files of the run folder, where `val/pq` is called `val.pq`."""
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    fit(configure(*SETTINGS, "logger=mlflow", "task.scheduler.total_iters=4"))
    fit(configure(*SETTINGS, "logger=mlflow", "task.scheduler.total_iters=4"))
    client: Any = MlflowClient((tmp_path / "run" / "mlruns").as_uri())
    (experiment,) = [one for one in client.search_experiments() if one.name == "ecoscale"]
    (run,) = client.search_runs([experiment.experiment_id])
    expected = {name.replace("/", "."): value for name, value in scores(tmp_path / "run").items()}
    assert {name: run.data.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5, nan_ok=True)
    assert run.data.params["schedule"] == "[1, 1, 1]"


def test_several_loggers_go_together(configure: Callable[..., DictConfig]) -> None:
    """Each with CSV; none at all if that is asked for."""
    assert set(configure("logger=[tensorboard,mlflow]").logger) == {"csv", "tensorboard", "mlflow"}
    assert set(configure("logger=[tensorboard,wandb]").logger) == {"csv", "tensorboard", "wandb"}
    assert set(configure("logger=wandb").logger) == {"csv", "wandb"}
    assert not configure("logger=[]").get("logger")


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_package_that_is_missing_is_said_with_its_extra(
    name: str, configure: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line."""
    monkeypatch.setattr(hparams, "find_spec", lambda package: None)
    with pytest.raises(Exception, match=r"instantiating|not installed") as error:
        build_run(configure(*SETTINGS, f"logger={name}"))
    said = str(error.value.__cause__ or error.value)
    assert f"logger={name}: {name} is not installed: pip install '.[{name}]'" in said
