"""A job as one run of MLflow, in the run folder unless a server is given."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from src.loggers.hparams import require, shown
from src.system.atomic import write_text

KEPT = "mlflow_id"  # the file in a run folder with the id of its MLflow run
LONGEST = 500  # characters of a parameter's value that every MLflow since 1.28 takes
AT_ONCE = 100  # parameters that a request may have


class MlflowRun(MLFlowLogger):
    """One run; a job that resumes in its run folder continues it.

    Scores have their usual names; characters that MLflow refuses become `_`. A store of files has `val.pq` for
    `val/pq`, because a file `val/pq` cannot exist beside `val/pq/exit3`.

    Args:
        save_dir: the run folder.
        tracking_uri: the server or store; null: MLFLOW_TRACKING_URI, else files in `mlruns/` of the run folder.
    """

    def __init__(self, save_dir: str, experiment_name: str, run_name: str, tracking_uri: str | None = None):
        require("mlflow")
        store = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if store is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # otherwise recent MLflow wants a database
            store = (Path(save_dir).absolute() / "mlruns").as_uri()
        self.in_files = store.startswith("file:")
        self.kept = Path(save_dir) / KEPT
        identity = self.kept.read_text().strip() if self.kept.is_file() else None
        super().__init__(experiment_name, run_name, store, run_id=identity)

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.kept.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log settings by their names; those that a run already has stay, because MLflow changes none."""
        from mlflow.entities import Param

        client, run = self.experiment, str(self.run_id)
        if not self.kept.is_file():
            write_text(run, self.kept)
        if isinstance(dict(params).get("config"), Mapping):
            client.log_dict(run, dict(params)["config"], "config.json")
        known = client.get_run(run).data.params
        values = {allowed(name): str(value)[:LONGEST] for name, value in shown(dict(params)).items()}
        new = [Param(name, value) for name, value in values.items() if name not in known]
        for first in range(0, len(new), AT_ONCE):
            client.log_batch(run, params=new[first : first + AT_ONCE])

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log scores by their names."""
        named = {name.replace("/", ".") if self.in_files else name: value for name, value in metrics.items()}
        super().log_metrics({allowed(name): value for name, value in named.items()}, step)


def allowed(name: str) -> str:
    """A name as MLflow takes it, with `_` for anything but letters, digits, spaces and `_ - . /`."""
    return re.sub(r"[^A-Za-z0-9_/. -]", "_", name)
