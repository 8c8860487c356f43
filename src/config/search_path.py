"""Configuration folders outside the repository, as `--config-dir` and `hydra.searchpath` name them."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from src.config.overrides import name_of, parsed, quote

FLAG = re.compile(r"(?:-cd|--config-d(?:ir?)?)(?:=(.*))?")  # argparse takes abbreviations
SETTING = re.compile(r"\+*hydra\.searchpath=")
RUN_BY_HYDRA = ("callbacks", "job_logging", "hydra_logging", "job.env_set")
PLUGINS = ("hydra.", "hydra_plugins.", "optuna.")


def with_search_path(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with all configuration folders in one override at the end, as absolute paths.

    Raises ValueError for a folder that does not exist.
    """
    places: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if flag := FLAG.fullmatch(argument):
            folder = flag[1] if flag[1] is not None else next(rest, "")
            places.insert(0, absolute(folder, "--config-dir"))
        elif SETTING.match(argument):
            places += [absolute(place, "hydra.searchpath") for place in places_of(argument)]
        else:
            others.append(argument)
    found = len(others) < len(arguments)
    return [*others, spelled(dict.fromkeys(places))] if found else others


def names_search_path(arguments: Sequence[str]) -> bool:
    """Whether one of the arguments names a configuration folder."""
    return any(SETTING.match(argument) or FLAG.fullmatch(argument) for argument in arguments)


def search_path(hydra: Any) -> list[str]:
    """Return the override that gives another command this search path; none if it is empty."""
    return [spelled(hydra.searchpath)] if hydra.searchpath else []


def overrides_of(hydra: Any) -> list[str]:
    """Return the overrides of this command, for a checkpoint to keep."""
    return [*search_path(hydra), *hydra.overrides.task]


def spelled(places: Any) -> str:
    """A search path as an override."""
    return f"hydra.searchpath=[{','.join(map(quote, places))}]"


def places_of(override: str) -> list[str]:
    """Return the entries of a search path. Raises ValueError if they are not a list of texts."""
    try:
        value: Any = parsed(override).value()
    except HydraException:
        value = None
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(place, str) for place in value):
        raise ValueError(f"{override}: expected a list of folders, for example hydra.searchpath=[my_conf]")
    return value


def absolute(place: str, setting: str) -> str:
    """Return an entry with an absolute path, a package (`pkg://`) as it is. Raises ValueError for a missing folder."""
    if place.startswith("pkg://"):
        return place
    folder = Path(place.removeprefix("file://"))
    if not place or not folder.is_dir():
        raise ValueError(f"{setting}={place}: no such folder, looked in {Path.cwd()}")
    return f"file://{folder.resolve()}"


def remembered(overrides: Sequence[str], source: str) -> list[str]:
    """Return the search path of a checkpoint as an override, without folders that no longer exist.

    Missing folders are reported; `source` names the checkpoint. Packages are left out: they would be imported.
    """
    saved = [place for override in overrides if SETTING.match(override) for place in places_of(override)]
    found = []
    for folder in (place.removeprefix("file://") for place in saved if place.startswith("file:///")):
        if Path(folder).is_dir():
            found.append(f"file://{folder}")
        else:
            print(f"{source}: its folder of configuration {folder} is gone, and is left out", file=sys.stderr)
    return [spelled(found)] if found else []


def refuse_commands(cfg: DictConfig, overrides: Sequence[str], primary: str) -> None:
    """Raise ValueError if files outside the repository have Hydra itself run or import something.

    A checkpoint may name such files. `cfg` is the primary config with the overrides; Hydra must be initialised.
    """
    if not cfg.hydra.searchpath:
        return
    typed = [override for override in overrides if name_of(override).startswith("hydra")]
    plain = compose(primary, typed, return_hydra_config=True).hydra
    for name in RUN_BY_HYDRA:
        composed, expected = (OmegaConf.to_container(OmegaConf.select(hydra, name)) for hydra in (cfg.hydra, plain))
        if composed != expected:
            places = ", ".join(cfg.hydra.searchpath)
            raise ValueError(f"hydra.{name}: set by a file in {places}, expected on the command line only")
    for target in targets(OmegaConf.to_container(cfg.hydra)):
        if not target.startswith(PLUGINS):
            raise ValueError(f"hydra: names {target}, expected a class below {', '.join(PLUGINS)}")


def targets(node: Any) -> Iterator[str]:
    """Yield the name of every class in a config."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    for child in node if isinstance(node, list) else []:
        yield from targets(child)
