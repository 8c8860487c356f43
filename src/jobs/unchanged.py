"""Whether the configuration is still the one that a job began with."""

import yaml  # comes with OmegaConf
from omegaconf import DictConfig, OmegaConf

from src.config.differences import differences, listed
from src.config.saved_settings import HOW
from src.jobs.running import Job
from src.system.terminal import fail


def check_unchanged(job: Job, cfg: DictConfig, setting: str) -> None:
    """Refuse to go on with jobs, some of which have results by other settings than the files of today give.

    Raises SystemExit, in one line; `setting` is what gives the jobs another folder.
    """
    if not job.begun or not (job.done or (job.folder / "checkpoints" / "last.ckpt").is_file()):
        return
    try:
        before = yaml.safe_load((job.folder / ".hydra" / "config.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return
    now = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"]))
    if changes := differences(before, now, HOW):
        fail(
            f"{job.folder}: files of the configuration have changed since this job began: {listed(changes)}; old and "
            f"new results would be mixed. Expected the settings as they were, or {setting}=FOLDER for new results"
        )
