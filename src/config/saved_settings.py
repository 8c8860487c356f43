"""The settings that a checkpoint was trained with, and how commands take them up."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config.checkpoints import newest
from src.config.command_line import initialized
from src.config.differences import Difference, Missing, below, differences, listed
from src.config.home import expand_home
from src.config.schema import parameters_of, quote, spell
from src.config.search_path import names_search_path, remembered, with_search_path
from src.system.terminal import fail
from src.weights.files import load

# Of a checkpoint's settings: flags, where and how to log, the task, which is the command's, and what it started from.
RUN = ("-", "hydra", "ckpt_path", "paths", "model.weights", "model.drop_class", "allow")
NOT_TAKEN_UP = (*RUN, "logger", "callbacks", "task=")
# Settings that say where and how a command runs, not what comes of it.
HOW = (
    *("paths", "logger", "callbacks", "hydra", "ckpt_path", "name", "allow", "task._target_", "task.model"),
    *("model.weights", "model.drop_class_head", "model.backbone.pretrained", "model.compile"),
    *("model.activation_checkpointing", "data.num_workers", "batch_size_per_device"),
    *(f"trainer.{name}" for name in ("accelerator", "devices", "strategy", "num_nodes", "plugins", "profiler")),
    *(f"trainer.{name}" for name in ("enable_progress_bar", "enable_model_summary", "default_root_dir")),
)


def settings_to_keep(cfg: DictConfig, overrides: list[str] | None) -> dict[str, Any]:
    """What a checkpoint keeps of a configuration, in plain containers.

    `overrides` as they were typed; `config` with every value; `composed` as files and overrides had it, with pointers.
    """
    return {
        "overrides": overrides or [],
        "config": OmegaConf.to_container(cfg, resolve=True),
        "composed": OmegaConf.to_container(cfg, resolve=False),
    }


# ---- taken up by a command


def saved_overrides(arguments: list[str], below_experiment: bool = False, setting: str = "ckpt_path") -> list[str]:
    """As `with_saved`; mistakes end in one line."""
    try:
        return with_saved(arguments, below_experiment, setting)
    except ValueError as error:
        fail(str(error))


def with_saved(arguments: list[str], below_experiment: bool = False, setting: str = "ckpt_path") -> list[str]:
    """The settings that the checkpoint some setting names was trained with, then what was typed.

    They are those of its training also where files of the configuration have changed since, or are gone; that is said.
    An experiment that was typed stands alone, or, if asked for, in the place of the checkpoint's own. Raises ValueError
    for a file that is no checkpoint of a whole model of ours.
    """
    arguments = with_search_path([*map(expand_home, arguments)])
    file, experiment = named(arguments, setting)
    if (experiment and not below_experiment) or not file.is_file():
        return arguments
    kept = kept_in(file, setting)
    if gate := kept.get("gate"):
        raise ValueError(f"{setting}={file}: a gate; expected its parent {gate['source']}, and gate={file} to run it")
    left = (*NOT_TAKEN_UP, "experiment", "name") if experiment else NOT_TAKEN_UP
    return taken_up(kept, left, arguments, f"{setting}={file}")


def resumed(arguments: list[str]) -> list[str]:
    """What was typed to train on from a checkpoint, with its settings before that unless an experiment was typed."""
    try:
        arguments = with_search_path([*map(expand_home, arguments)])
        file, experiment = named(arguments, "ckpt_path")
        if experiment or not file.is_file():
            return arguments
        kept = kept_in(file, "ckpt_path")
        again = taken_up(kept, RUN, arguments, f"ckpt_path={file}")
    except ValueError as error:
        fail(str(error))
    from_weights = any(one.lstrip("+").startswith("model.weights=") for one in kept["overrides"])
    weights = ["model.weights=null", "model.drop_class_head=false"]  # which the checkpoint has learnt on from
    return [*(weights if from_weights and weights[0] not in again else []), *again]


def named(arguments: Sequence[str], setting: str) -> tuple[Path, bool]:
    """The file that a setting names, and whether an experiment was typed."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    file = Path(given.get(setting, "").strip("'\""))
    if file == Path("last"):
        file = newest(Path(given.get("paths.runs", "runs")), given.get("name", "run")) or file
    return file, bool({"+experiment", "experiment"} & set(given))


def kept_in(file: Path, setting: str) -> dict[str, Any]:
    """What a checkpoint of ours keeps of its settings. Raises ValueError for any other file."""
    content = load(file, setting, mmap=True)
    try:
        kept = dict(content["hyper_parameters"])
        kept["overrides"] = [*map(str, kept["overrides"])] if "gate" not in kept else kept.get("overrides", [])
        return kept
    except Exception as error:
        raise ValueError(
            f"{setting}={file}: not a checkpoint of this project; weights from elsewhere go to model.weights="
        ) from error


def taken_up(kept: Mapping[str, Any], left: tuple[str, ...], arguments: list[str], source: str) -> list[str]:
    """Overrides that give the settings kept, but for those that begin with names left, then what was typed.

    Folders of configuration that the checkpoint names are searched where none were typed, but allow no classes.
    """
    saved = [one for one in kept["overrides"] if not one.lstrip("+~ ").startswith(left) and one not in arguments]
    folders = [] if names_search_path(arguments) else remembered(kept["overrides"], source)
    allowed = ["allow=[]"] if folders and not any(one.lstrip("+").startswith("allow=") for one in arguments) else []
    if not kept.get("config"):
        return [*folders, *saved, *allowed, *arguments]
    search = folders or [one for one in arguments if names_search_path([one])]
    composing, changes = changes_since(kept, [*search, *(one for one in kept["overrides"] if not one.startswith(RUN))])
    gone = [one for one in saved if one not in composing]
    own = [one.lstrip("+~").split("=")[0].replace("/", ".") for one in arguments]
    back = [change for change in changes if goes_back(change, changes, kept, own)]
    back = [change for change in back if pinned(change) not in arguments]  # as in a process that this one has started
    if back:
        lost = f" ({', '.join(gone)} cannot be composed any more)" if gone else ""
        print(
            f"{source}: the files of the configuration have changed since it was trained{lost}: {listed(back)}; "
            "the checkpoint's settings are used",
            file=sys.stderr,
        )
    if new := [change for change in changes if not goes_back(change, changes, kept, own) and change.name not in own]:
        print(f"{source}: settings that it was trained without are used: {listed(new)}", file=sys.stderr)
    saved = [one for one in saved if one not in gone]
    return [*folders, *saved, *map(pinned, back), *allowed, *arguments]


def changes_since(kept: Mapping[str, Any], overrides: list[str]) -> tuple[list[str], list[Difference]]:
    """Which overrides can still be composed, and what they compose to that is not as it was kept."""
    with initialized():
        composing = composable(overrides)
        now: Any = compose("config", composing)
    if "composed" in kept:
        before, plain = kept["composed"], OmegaConf.to_container(now, resolve=False)
    else:  # by an earlier version, which kept values alone
        named = [str(name) for name in now if name not in ("paths", "callbacks", "logger")]  # of a run folder
        before, plain = kept["config"], OmegaConf.to_container(OmegaConf.masked_copy(now, named), resolve=True)
    return composing, differences(before, plain, HOW)


def composable(overrides: list[str]) -> list[str]:
    """The overrides, less those that name what is there no more, such as an experiment."""
    try:
        compose("config", overrides)
        return overrides
    except (HydraException, OmegaConfBaseException):
        kept: list[str] = []
        for override in overrides:
            try:
                compose("config", [*kept, override])
                kept.append(override)
            except (HydraException, OmegaConfBaseException):
                continue
        return kept


def goes_back(change: Difference, changes: Sequence[Difference], kept: Mapping[str, Any], own: Sequence[str]) -> bool:
    """Whether a setting is to be as it was; one that is new stays where it is typed, or where nothing works without."""
    if not isinstance(change.before, Missing):
        return True
    if below(change.name, own):
        return False
    others = [one.name.removesuffix("._target_") for one in changes if one.name.endswith("._target_")]
    return below(change.name, others) or optional(change.name, kept.get("composed", kept["config"]))


def optional(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether some settings work without another one: it goes to a class that has a default for it, or to its options.

    A later version of ours may add one that a class needs, or that others point to.
    """
    *above, key = name.split(".")
    node: Any = settings
    for part in above:
        node = node.get(part) if isinstance(node, dict) else None
    if not above or not isinstance(node, dict):
        return False
    if "_target_" not in node:
        return True
    try:
        parameter = parameters_of(node["_target_"]).get(key)
    except ValueError:  # a class of another package, or one that is gone
        return False
    return parameter is not None and parameter.default is not parameter.empty


def pinned(change: Difference) -> str:
    """The override that gives a setting the value that it had, or takes it away."""
    if isinstance(change.before, Missing):
        return f"~{change.name}"
    return f"++{change.name}={typed(change.before)}"


def typed(value: Any) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{typed(one)}" for key, one in value.items()) + "}"
    return quote(value) if isinstance(value, str) else spell(value)
