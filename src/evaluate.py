"""Score a checkpoint at every exit or with a gate: python -m src.evaluate ckpt_path=runs/.../best.ckpt.

Settings are those of the training; command-line overrides take precedence.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.config.build import build_run
from src.config.checkpoints import take_weights
from src.config.command_line import CONF, run
from src.config.errors import report_errors
from src.config.saved_settings import saved_overrides
from src.config.search_path import overrides_of
from src.records import run_folder


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
@report_errors
def evaluate(cfg: DictConfig) -> None:
    """Validate, print the scores and write them into the run folder."""
    if cfg.get("model") is None:
        raise ValueError("model=null: a gate alone is scored as it is trained, in gate.json; nothing else to evaluate")
    take_weights(cfg, "evaluate")
    run_folder.begin(Path(cfg.paths.run))
    task, data, trainer = build_run(cfg, overrides_of(HydraConfig.get()))
    trainer.validate(task, data, verbose=False)
    if trainer.is_global_zero:
        run_folder.finish(Path(cfg.paths.run), "scored")


if __name__ == "__main__":
    run(evaluate, saved_overrides(sys.argv[1:]), "evaluate")
