"""Folders of configuration outside the repository, which `--config-dir` and `hydra.searchpath` name."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from src.config.schema import quote

FLAG = re.compile(r"(?:-cd|--config-d(?:ir?)?)(?:=(.*))?")  # argparse takes abbreviations
SETTING = re.compile(r"\+*hydra\.searchpath=")
RUN_BY_HYDRA = ("callbacks", "job_logging", "hydra_logging", "job.env_set")
PLUGINS = ("hydra.", "hydra_plugins.", "optuna.")


def with_search_path(arguments: Sequence[str]) -> list[str]:
    """The arguments with all folders of configuration in one override at their end, with absolute paths.

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
    """Whether some of the arguments names a folder of configuration."""
    return any(SETTING.match(argument) or FLAG.fullmatch(argument) for argument in arguments)


def search_path(hydra: Any) -> list[str]:
    """The override that gives another command the search path of this one; none where it has none."""
    return [spelled(hydra.searchpath)] if hydra.searchpath else []


def overrides_of(hydra: Any) -> list[str]:
    """What this command was given, for a checkpoint to remember."""
    return [*search_path(hydra), *hydra.overrides.task]


def spelled(places: Any) -> str:
    """A search path as an override."""
    return f"hydra.searchpath=[{','.join(map(quote, places))}]"


def places_of(override: str) -> list[str]:
    """The entries of a search path. Raises ValueError for what is no list of texts."""
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:
        value = None
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(place, str) for place in value):
        raise ValueError(f"{override}: expected a list of folders, for example hydra.searchpath=[my_conf]")
    return value


def absolute(place: str, setting: str) -> str:
    """An entry with an absolute path. Raises ValueError where there is no such folder; packages (`pkg://`) pass."""
    if place.startswith("pkg://"):
        return place
    folder = Path(place.removeprefix("file://"))
    if not place or not folder.is_dir():
        raise ValueError(f"{setting}={place}: no such folder, looked in {Path.cwd()}")
    return f"file://{folder.resolve()}"


def remembered(overrides: Sequence[str], source: str) -> list[str]:
    """The search path that a checkpoint was trained with, as an override; of it what are folders that exist.

    A folder that is gone is left out, in one line that names `source`, the checkpoint.
    """
    saved = [place for override in overrides if SETTING.match(override) for place in places_of(override)]
    folders = [place for place in saved if place.startswith("file:///")]  # a package would be imported
    there = [place for place in folders if Path(place.removeprefix("file://")).is_dir()]
    for place in folders:
        if place not in there:
            print(f"{source}: its folder of configuration {place[7:]} is gone, and is left out", file=sys.stderr)
    return [spelled(there)] if there else []


def refuse_commands(cfg: DictConfig, overrides: Sequence[str], primary: str) -> None:
    """Refuse files outside the repository that have Hydra itself run or import something: a checkpoint may name them.

    `cfg` is what the overrides make of the primary config; Hydra must be initialised. Raises ValueError naming the
    setting.
    """
    if not cfg.hydra.searchpath:
        return
    typed = [override for override in overrides if override.lstrip("+~").startswith("hydra")]
    plain = compose(primary, typed, return_hydra_config=True).hydra
    for name in RUN_BY_HYDRA:
        if plain_value(cfg.hydra, name) != plain_value(plain, name):
            places = ", ".join(cfg.hydra.searchpath)
            raise ValueError(f"hydra.{name}: set by a file in {places}, expected on the command line only")
    for target in targets(OmegaConf.to_container(cfg.hydra)):
        if not target.startswith(PLUGINS):
            raise ValueError(f"hydra: names {target}, expected a class below {', '.join(PLUGINS)}")


def plain_value(node: DictConfig, name: str) -> Any:
    """A setting as plain values, as it is written."""
    value = node
    for key in name.split("."):
        value = value[key]
    return OmegaConf.to_container(value)


def targets(node: Any) -> Iterator[str]:
    """Every class that a config names."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    for child in node if isinstance(node, list) else []:
        yield from targets(child)
