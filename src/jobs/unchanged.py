"""Compare the configuration of a job with the one it was started with."""

import yaml  # comes with OmegaConf
from omegaconf import DictConfig, OmegaConf

from src.config.differences import differences, listed
from src.config.saved_settings import HOW
from src.jobs.job import Job
from src.system.terminal import fail


def check_unchanged(job: Job, cfg: DictConfig, setting: str) -> None:
    """Raise SystemExit if a job with results was started with a configuration other than `cfg`.

    `setting` is the name of the setting that chooses another folder for the jobs.
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
