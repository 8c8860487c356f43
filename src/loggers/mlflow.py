"""A job as one run of MLflow, in the run folder unless a server is named."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from src.loggers.hparams import require, shown
from src.system.atomic import write_text

KEPT = "mlflow_id"  # the file in a run folder that keeps the id of its run
LONGEST = 500  # letters of a parameter's value that every MLflow since 1.28 takes


class MlflowRun(MLFlowLogger):
    """One run; a job that goes on in its run folder goes on in its run.

    Scores have the names that they have everywhere; letters that MLflow refuses become `_`.
    A store of files has `val.pq` for `val/pq`, for there no file `val/pq` can lie beside `val/pq/exit3`.

    Args:
        save_dir: the run folder.
        experiment_name, run_name: as MLflow shows them.
        tracking_uri: the server or store; null: MLFLOW_TRACKING_URI, else files in `mlruns/` of the run folder.
    """

    def __init__(self, save_dir: str, experiment_name: str, run_name: str, tracking_uri: str | None = None):
        require("mlflow")
        store = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if store is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else recent MLflow wants a database
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
        """Settings by their names; what a run has already stays, for MLflow changes none."""
        client, run = self.experiment, str(self.run_id)
        if not self.kept.is_file():
            write_text(run, self.kept)
        if isinstance(dict(params).get("config"), Mapping):
            client.log_dict(run, dict(params)["config"], "config.json")
        known = client.get_run(run).data.params
        new = {allowed(name): str(value)[:LONGEST] for name, value in shown(dict(params)).items()}
        from mlflow.entities import Param

        listed = [Param(name, value) for name, value in new.items() if name not in known]
        for first in range(0, len(listed), 100):  # as many as a request may have
            client.log_batch(run, params=listed[first : first + 100])

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Scores by their names."""
        names = {name: allowed(name.replace("/", ".") if self.in_files else name) for name in metrics}
        super().log_metrics({names[name]: value for name, value in metrics.items()}, step)


def allowed(name: str) -> str:
    """A name as MLflow takes it: letters, digits and `_ - . / :` and spaces; others become `_`."""
    return re.sub(r"[^A-Za-z0-9_/. -]", "_", name)
