"""A job as one run of W&B, with its inputs and outputs as artifacts."""

import os
import secrets
from collections.abc import Mapping, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from src.records.run_folder import digest
from src.system.atomic import write_text

KEPT = "wandb_id"  # the file in a run folder with the id of its W&B run
LONGEST = 64  # characters of a name, a group or a tag
RESUMES = ("parent", "gate")  # types of jobs that resume from `ckpt_path`


class WandbRun(WandbLogger):
    """One run, online with a key, else offline in the run folder; a job that resumes another continues its run.

    Artifacts are named by their content, so that the jobs that make and use a file name it alike, online or not.

    Args:
        save_dir: the run folder.
        job_type: parent, oracle, gate or evaluation.
        ckpt_path: the checkpoint that a training resumes, if any.
        others: further arguments of WandbLogger.
    """

    def __init__(self, save_dir: str, job_type: str, ckpt_path: str | None = None, **others: Any):
        import wandb  # takes a second

        resumed = Path(ckpt_path).parent.parent if ckpt_path and job_type in RESUMES else None
        decided = "WANDB_MODE" in os.environ or wandb.login(prompt=False, verify=False)
        mode = None if decided else "offline"
        if os.environ.get("WANDB_SWEEP_ID"):  # the agent names the run by WANDB_RUN_ID
            identity, others = os.environ.get("WANDB_RUN_ID"), {**others, "group": None, "resume": None}
        else:
            identity = run_id(Path(save_dir), resumed)
        super().__init__(save_dir=save_dir, job_type=job_type, id=identity, mode=mode, **shortened(others))
        self.job_type = job_type
        self.checkpoints: set[str] = set()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, started at its first use. Raises OSError if W&B cannot be reached or refuses."""
        import wandb

        try:
            return super().experiment
        except wandb.Error as error:
            raise OSError(f"W&B: {error}; WANDB_MODE=offline keeps the run in {self.save_dir}/wandb") from error

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log settings; files that a whole configuration under `config` names become inputs of the run."""
        super().log_hyperparams(params)
        for kind, place in inputs(dict(params).get("config") or {}).items():
            self.use(kind, Path(place))

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Remember the file; it is logged in its last state, at the end."""
        self.checkpoints.add(checkpoint_callback.best_model_path)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Log the checkpoints of a successful run, and close it."""
        if self._experiment is None:
            return
        if status == "success":
            for file in sorted(map(Path, filter(None, self.checkpoints))):
                self.make(self.job_type, file)
        self.experiment.finish(exit_code=int(status != "success"))
        self._experiment = None

    @rank_zero_only
    def make(self, kind: str, place: Path) -> None:
        """Log a file or a folder as an output of this run."""
        self.experiment.log_artifact(artifact_of(kind, place), aliases=[place.stem])

    @rank_zero_only
    def use(self, kind: str, place: Path) -> None:
        """Log a file or a folder as an input of this run."""
        run, artifact = self.experiment, artifact_of(kind, place)
        if run.offline:  # use_artifact refuses, although the run's file can hold it
            run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        else:
            run.use_artifact(artifact)


def log_trade_off(
    loggers: Sequence[Any], rows: Mapping[str, Mapping[str, float]], quality: str, cost: str, step: int
) -> None:
    """Log a table and a chart of quality against cost for every exit or policy, if W&B logging is enabled."""
    for logger in loggers:
        if isinstance(logger, WandbRun):
            import wandb

            data = [[policy, row[cost], row[quality]] for policy, row in rows.items()]
            table = wandb.Table(columns=["exit", "gflops", "quality"], data=data)
            chart: Any = wandb.plot.scatter(table, "gflops", "quality", f"{quality} against {cost}")
            logger.log_metrics({"trade_off": chart}, step)


def shortened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run with its name, group and tags as short as W&B requires."""
    short = {key: fitting(settings[key]) for key in ("name", "group") if settings.get(key)}
    tags = {"tags": [fitting(tag) for tag in settings["tags"]]} if settings.get("tags") else {}
    return {**settings, **short, **tags}


def fitting(text: str) -> str:
    """A text of 64 characters at most; a longer one is cut and ends with its digest."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 9]}-{digest(text)}"


def run_id(folder: Path, resumed: Path | None) -> str:
    """Return the id in a run folder, else that of the run it resumes, else a new one; keep it in the folder."""
    kept = [place / KEPT for place in (folder, resumed) if place is not None and (place / KEPT).is_file()]
    identity = kept[0].read_text().strip() if kept else secrets.token_hex(4)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        write_text(identity, folder / KEPT)
    return identity


def inputs(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the files that a configuration builds on, by their kind."""
    named = {
        "parent": (config.get("model") or {}).get("weights"),
        "gate": config.get("gate"),
        "exit_table": (config.get("data") or {}).get("table"),
    }
    return {kind: place for kind, place in named.items() if place is not None and Path(place).exists()}


def artifact_of(kind: str, place: Path) -> Any:
    """Return a file or a folder as an artifact that refers to the files without copying them."""
    import wandb

    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    content = sha256()
    for file in files:
        with open(file, "rb") as stream:
            file_digest(stream, lambda: content)
    artifact = wandb.Artifact(f"{kind}-{content.hexdigest()[:12]}", type=kind, metadata={"from": place.name})
    for file in files:
        name = str(file.relative_to(place)) if place.is_dir() else f"{kind}{place.suffix}"
        artifact.add_file(str(file), name=name, policy="immutable")
    return artifact
