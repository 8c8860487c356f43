"""Train a model: python -m src.train +experiment=proscale_shapes."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.command_line import CONF, guarded, run
from src.compose import compose, find_checkpoint


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
@guarded
def train(cfg: DictConfig) -> None:
    """Fit, from a checkpoint if one is named."""
    cfg.ckpt_path = find_checkpoint(cfg)
    task, data, trainer = compose(cfg, list(HydraConfig.get().overrides.task))
    trainer.fit(task, data, ckpt_path=cfg.ckpt_path, weights_only=True)


if __name__ == "__main__":
    run(train)
