"""A job as one run of W&B, with what it is made from and what it makes as artifacts."""

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

from src.system.atomic import write_text

KEPT = "wandb_id"  # the file in a run folder that keeps the id of its run
LONGEST = 64  # letters of a name, a group or a tag
RESUMES = ("parent", "gate")  # types of jobs whose checkpoint is one to go on from


class WandbRun(WandbLogger):
    """One run, online with a key, else offline in the run folder; a job that resumes another continues its run.

    Artifacts are named by their content, so that who uses a file and who made it name it alike, online or not.

    Args:
        save_dir: the run folder.
        job_type: parent, oracle, gate or evaluation.
        ckpt_path: the checkpoint that a training resumes; null: none.
        others: as WandbLogger.
    """

    def __init__(self, save_dir: str, job_type: str, ckpt_path: str | None = None, **others: Any):
        import wandb  # takes a second, which only those pay who use it

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
        """The run, begun when it is first asked for. Raises OSError if W&B cannot be reached or refuses."""
        import wandb

        try:
            return super().experiment
        except wandb.Error as error:
            raise OSError(f"W&B: {error}; WANDB_MODE=offline keeps the run in {self.save_dir}/wandb") from error

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Settings; of a whole configuration under `config` the files it names become inputs of the run."""
        super().log_hyperparams(params)
        for kind, place in inputs(dict(params).get("config") or {}).items():
            self.use(kind, Path(place))

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Remember the file, whose last state is kept at the end."""
        self.checkpoints.add(checkpoint_callback.best_model_path)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep the checkpoints, if all went well, and close the run."""
        if self._experiment is None:
            return
        if status == "success":
            for file in sorted(map(Path, filter(None, self.checkpoints))):
                self.make(self.job_type, file)
        self.experiment.finish(exit_code=int(status != "success"))
        self._experiment = None

    @rank_zero_only
    def make(self, kind: str, place: Path) -> None:
        """Say that this run made a file or a folder."""
        self.experiment.log_artifact(artifact_of(kind, place), aliases=[place.stem])

    @rank_zero_only
    def use(self, kind: str, place: Path) -> None:
        """Say that this run is made from a file or a folder."""
        run, artifact = self.experiment, artifact_of(kind, place)
        if run.offline:  # use_artifact refuses, although the file of the run can hold it
            run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        else:
            run.use_artifact(artifact)


def log_trade_off(
    loggers: Sequence[Any], rows: Mapping[str, Mapping[str, float]], quality: str, cost: str, step: int
) -> None:
    """Show a table and a chart of quality against cost of every exit or chooser of exits, if W&B listens."""
    for logger in loggers:
        if isinstance(logger, WandbRun):
            import wandb

            data = [[who, row[cost], row[quality]] for who, row in rows.items()]
            table = wandb.Table(columns=["exit", "gflops", "quality"], data=data)
            chart: Any = wandb.plot.scatter(table, "gflops", "quality", f"{quality} against {cost}")
            logger.log_metrics({"trade_off": chart}, step)


def shortened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run with its name, group and tags as long as W&B takes them."""
    short = {key: fitting(settings[key]) for key in ("name", "group") if settings.get(key)}
    tags = {"tags": [fitting(tag) for tag in settings["tags"]]} if settings.get("tags") else {}
    return {**settings, **short, **tags}


def fitting(text: str) -> str:
    """A text of 64 letters at most: its beginning, and of a longer one a digest that tells it from others."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 9]}-{sha256(text.encode()).hexdigest()[:8]}"


def run_id(folder: Path, resumed: Path | None) -> str:
    """The id that a run folder keeps: its own, that of the run it resumes, or a new one."""
    kept = [place / KEPT for place in (folder, resumed) if place is not None and (place / KEPT).is_file()]
    identity = kept[0].read_text().strip() if kept else secrets.token_hex(4)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        write_text(identity, folder / KEPT)
    return identity


def inputs(config: Mapping[str, Any]) -> dict[str, str]:
    """Files that a configuration builds on, by what they are."""
    named = {
        "parent": (config.get("model") or {}).get("weights"),
        "gate": config.get("gate"),
        "exit_table": (config.get("data") or {}).get("table"),
    }
    return {kind: place for kind, place in named.items() if place is not None and Path(place).exists()}


def artifact_of(kind: str, place: Path) -> Any:
    """A file or a folder as W&B takes it; files are not copied."""
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
