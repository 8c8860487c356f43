"""The settings that a checkpoint was trained with, and how commands use them."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config.checkpoints import newest
from src.config.command_line import initialized
from src.config.differences import MISSING, Difference, below, differences, listed
from src.config.overrides import expand_home, name_of, written
from src.config.schema import parameters_of
from src.config.search_path import names_search_path, remembered, with_search_path
from src.system.terminal import fail
from src.weights.files import load

# Beginnings of a checkpoint's overrides that no command uses: flags, the sweep it was a job of, where it ran, what it
# started from.
RUN = ("-", "hydra", "sweep", "ckpt_path", "paths", "model.weights", "model.drop_class", "allow")
NOT_USED = (*RUN, "logger", "callbacks", "task=")  # nor does a command with a task and loggers of its own use these
# Settings that say where and how a command runs and leave its results as they are.
HOW = (
    *("paths", "logger", "callbacks", "hydra", "ckpt_path", "name", "variant", "allow", "task._target_", "task.model"),
    *("model.weights", "model.drop_class_head", "model.backbone.pretrained", "model.compile"),
    *("model.activation_checkpointing", "model.pixel_decoder.encoder.sampling"),
    *("data.num_workers", "batch_size_per_device"),
    *(f"trainer.{name}" for name in ("accelerator", "devices", "strategy", "num_nodes", "plugins", "profiler")),
    *(f"trainer.{name}" for name in ("enable_progress_bar", "enable_model_summary", "default_root_dir")),
)


def settings_to_keep(cfg: DictConfig, overrides: list[str] | None) -> dict[str, Any]:
    """Return what a checkpoint keeps: the overrides, all values, and `composed`: with unresolved interpolations."""
    return {
        "overrides": overrides or [],
        "config": OmegaConf.to_container(cfg, resolve=True),
        "composed": OmegaConf.to_container(cfg, resolve=False),
    }


def saved_overrides(
    arguments: list[str], below_experiment: bool = False, setting: str = "ckpt_path", resumes: bool = False
) -> list[str]:
    """As `with_saved`; a mistake ends the command in one line."""
    try:
        return with_saved(arguments, below_experiment, setting, resumes)
    except ValueError as error:
        fail(str(error))


def resumed(arguments: list[str]) -> list[str]:
    """As `saved_overrides`, for a training that resumes."""
    return saved_overrides(arguments, resumes=True)


def with_saved(
    arguments: list[str], below_experiment: bool = False, setting: str = "ckpt_path", resumes: bool = False
) -> list[str]:
    """Return overrides that give the settings of a checkpoint's training, then the given arguments.

    Where files of the configuration have changed since, the checkpoint's settings are restored, which is reported.
    Raises ValueError for a file that is not a checkpoint of a whole model of ours.

    Args:
        below_experiment: let an experiment among the arguments replace the checkpoint's; otherwise it stands alone.
        setting: names the checkpoint; if there is no such file, the arguments are returned alone.
        resumes: for a training that resumes, of a gate too; uses the checkpoint's task, callbacks and loggers as well.
    """
    arguments = with_search_path([*map(expand_home, arguments)])
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    file = Path(given.get(setting, "").strip("'\""))
    if file == Path("last"):
        file = newest(Path(given.get("paths.runs", "runs")), given.get("name", "run")) or file
    experiment = "+experiment" in given or "experiment" in given
    if (experiment and not below_experiment) or not file.is_file():
        return arguments
    kept, source = kept_in(file, setting), f"{setting}={file}"
    if resumes:
        again = taken_up(kept, RUN, arguments, source)
        if "model.weights" in map(name_of, kept["overrides"]) and "model.weights=null" not in again:
            again = ["model.weights=null", "model.drop_class_head=false", *again]  # the checkpoint has newer ones
        return again
    if gate := kept.get("gate"):
        raise ValueError(f"{source}: a gate; expected its parent {gate['source']}, and gate={file} to run it")
    return taken_up(kept, (*NOT_USED, "experiment", "name") if experiment else NOT_USED, arguments, source)


def kept_in(file: Path, setting: str) -> dict[str, Any]:
    """Return the settings that a checkpoint of ours keeps. Raises ValueError for any other file."""
    content = load(file, setting, mmap=True)
    try:
        kept = dict(content["hyper_parameters"])
        kept["overrides"] = [*map(str, kept["overrides"])] if "gate" not in kept else kept.get("overrides", [])
        return kept
    except Exception as error:
        raise ValueError(
            f"{setting}={file}: not a checkpoint of this project; weights from elsewhere go to model.weights="
        ) from error


def taken_up(kept: Mapping[str, Any], left_out: tuple[str, ...], arguments: list[str], source: str) -> list[str]:
    """Return overrides that give the kept settings, except those that begin with `left_out`, then the arguments.

    Unless the arguments name a search path, the checkpoint's is used, but allows no classes. Messages name `source`.
    """
    saved = [one for one in kept["overrides"] if not one.lstrip("+~ ").startswith(left_out) and one not in arguments]
    folders = [] if names_search_path(arguments) else remembered(kept["overrides"], source)
    search = folders or [one for one in arguments if names_search_path([one])]
    saved = without_other_data(saved, arguments, search, source)
    typed = [one for one in arguments if "=" in one or one.startswith("~")]  # a flag's value is none
    own = [name_of(one).replace("/", ".") for one in typed]
    allowed = ["allow=[]"] if folders and "allow" not in own else []
    if not kept.get("config"):
        return [*folders, *saved, *allowed, *arguments]
    used = [one for one in kept["overrides"] if not one.lstrip("+~ ").startswith(RUN)]
    composing, changes = changes_since(kept, [*search, *used])
    gone = [one for one in saved if one not in composing]
    restored, new = [], []
    for change in changes:
        if goes_back(change, changes, kept, own):
            restored.append(change)
        elif change.name not in own:
            new.append(change)
    restored = [change for change in restored if pinned(change) not in arguments]  # by the process that started this
    if restored:
        lost = f" ({', '.join(gone)} cannot be composed any more)" if gone else ""
        print(
            f"{source}: the files of the configuration have changed since it was trained{lost}: {listed(restored)}; "
            "the checkpoint's settings are used",
            file=sys.stderr,
        )
    if new:
        print(f"{source}: settings that it was trained without are used: {listed(new)}", file=sys.stderr)
    saved = [one for one in saved if one not in gone]
    return [*folders, *saved, *map(pinned, restored), *allowed, *arguments]


def without_other_data(saved: list[str], arguments: list[str], search: list[str], source: str) -> list[str]:
    """Return the saved overrides without those of `data.` that a data set among the arguments does not take."""
    chosen = [one for one in arguments if name_of(one) == "data"]
    if not chosen:
        return saved
    of_data = [one for one in saved if name_of(one).startswith("data.")]
    with initialized():
        taken, _ = composable([*search, *chosen, *of_data])
    gone = [one for one in of_data if one not in taken]
    if gone:
        print(f"{source}: trained with {', '.join(gone)}, which {chosen[-1]} does not take", file=sys.stderr)
    return [one for one in saved if one not in gone]


def changes_since(kept: Mapping[str, Any], overrides: list[str]) -> tuple[list[str], list[Difference]]:
    """Return the overrides that can still be composed, and how the result differs from the kept settings."""
    with initialized():
        composing, now = composable(overrides)
    if "composed" in kept:
        return composing, differences(kept["composed"], OmegaConf.to_container(now), HOW)
    # an earlier version kept values only; interpolations of these groups need a run folder
    names = [str(name) for name in now if name not in ("paths", "callbacks", "logger")]
    values = OmegaConf.to_container(OmegaConf.masked_copy(now, names), resolve=True)
    return composing, differences(kept["config"], values, HOW)


def composable(overrides: list[str]) -> tuple[list[str], DictConfig]:
    """Return the overrides whose settings and options still exist, such as an experiment, and what they compose to."""
    with suppress(HydraException, OmegaConfBaseException):
        return overrides, compose("config", overrides)
    kept: list[str] = []
    cfg = compose("config")
    for override in overrides:
        with suppress(HydraException, OmegaConfBaseException):
            cfg = compose("config", [*kept, override])
            kept.append(override)
    return kept, cfg


def goes_back(change: Difference, changes: Sequence[Difference], kept: Mapping[str, Any], own: Sequence[str]) -> bool:
    """Whether a setting gets its old value back. A new one is deleted unless it is among the `own` or required."""
    if change.before is not MISSING:
        return True
    if below(change.name, own):
        return False
    others = [one.name.removesuffix("._target_") for one in changes if one.name.endswith("._target_")]
    return below(change.name, others) or optional(change.name, kept.get("composed", kept["config"]))


def optional(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether some settings work without another: its class has a default for it, or it is one of a class's options.

    A later version of ours may add a setting that a class needs, or that others refer to.
    """
    node: Any = settings
    for key in name.split("."):
        if not isinstance(node, dict) or key not in node:  # the first part that is missing: all of it is new
            break
        node = node[key]
    if node is settings or not isinstance(node, dict):
        return False
    if "_target_" not in node:
        return True
    try:
        parameter = parameters_of(node["_target_"]).get(key)
    except ValueError:  # a class of another package, or one that is gone
        return False
    return parameter is not None and parameter.default is not parameter.empty


def pinned(change: Difference) -> str:
    """The override that gives a setting the value that it had, or deletes it."""
    return f"~{change.name}" if change.before is MISSING else f"++{change.name}={written(change.before)}"
