"""What the weights to start from say of their model, as settings."""

from functools import cache
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from src.config.schema import spell
from src.weights.checkpoint import read


def overrides_from_weights(cfg: DictConfig, overrides: list[str], primary: str) -> list[str]:
    """Overrides that make the model that of `model.weights`, where nobody asked for another; none without weights.

    `cfg` is what the overrides given make of the primary config; Hydra must be initialised. Raises ValueError where a
    setting that an experiment or the command line changed is not that of the weights, and what `read` raises.
    """
    source = OmegaConf.select(cfg, "model.weights")
    settings = settings_of(source) if source else None
    if settings is None:
        return []
    default = compose(primary, return_hydra_config=True)
    typed = {override.lstrip("+").split("=")[0] for override in overrides}
    settled = []
    for name, value in settings.items():
        now, before = setting(cfg, name), setting(default, name)
        if now == value:
            continue
        if name in typed or before not in (None, now):
            raise ValueError(f"{name}={spell(now)}, but model.weights={source} has {name}={spell(value)}")
        settled.append(f"{name}={spell(value)}")
    return settled


@cache
def settings_of(source: str) -> dict[str, Any] | None:
    """Those of a checkpoint, which is read once for all jobs of a sweep."""
    return read(source).settings()


def setting(cfg: DictConfig, name: str) -> Any:
    """The value of a setting as a plain value, or the choice made of a group; None where it has none."""
    if "/" in name:
        return cfg.hydra.runtime.choices.get(name)
    value = OmegaConf.select(cfg, name)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
