"""The settings of a model that the weights to start from imply."""

from functools import cache
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from src.config.overrides import name_of, spell
from src.weights.architecture import is_choice
from src.weights.checkpoint import read


def overrides_from_weights(cfg: DictConfig, overrides: list[str], primary: str) -> list[str]:
    """Return overrides that give the model the architecture of `model.weights`; none without weights.

    `cfg` is the primary config with the overrides; Hydra must be initialised. Raises ValueError if an experiment or
    the command line has changed a setting to another value than the weights', and as `read` raises.
    """
    source = OmegaConf.select(cfg, "model.weights")
    implied = settings_of(source) if source else None
    if implied is None:
        return []
    default = compose(primary, return_hydra_config=True)
    typed = set(map(name_of, overrides))
    settled = []
    for name, value in implied.items():
        now, before = setting(cfg, name), setting(default, name)
        if now == value:
            continue
        if name in typed or before not in (None, now):
            raise ValueError(f"{name}={spell(now)}, but model.weights={source} has {name}={spell(value)}")
        settled.append(f"{name}={spell(value)}")
    return settled


@cache  # read once for all jobs of a sweep
def settings_of(source: str) -> dict[str, Any] | None:
    return read(source).settings()


def setting(cfg: DictConfig, name: str) -> Any:
    """The plain value of a setting, or the chosen option of a group; None without one."""
    if is_choice(name):
        return cfg.hydra.runtime.choices.get(name)
    value = OmegaConf.select(cfg, name)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
