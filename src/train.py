"""Train a model: python -m src.train +experiment=proscale_shapes."""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.command_line import CONF, run
from src.compose import compose, find_progress, is_finished
from src.mistakes import guarded


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
@guarded
def train(cfg: DictConfig) -> None:
    """Fit, from a checkpoint if one is named."""
    checkpoint = find_progress(cfg)
    if is_finished(cfg, checkpoint):
        print(f"{checkpoint}: has all {cfg.trainer.max_steps} steps, nothing is left to train", file=sys.stderr)
        return
    cfg.ckpt_path = checkpoint
    task, data, trainer = compose(cfg, list(HydraConfig.get().overrides.task))
    trainer.fit(task, data, ckpt_path=cfg.ckpt_path, weights_only=True)


if __name__ == "__main__":
    run(train)
