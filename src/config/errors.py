"""Errors in one line: a user's mistakes with what helps; ours keep their stack trace."""

import builtins
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config.memory import memory_reason
from src.config.overrides import name_of, parsed
from src.config.schema import parameters_of, suggest
from src.config.unsupported import instead
from src.system.atomic import FULL, explain_full_disk
from src.system.signals import Interrupted, signals
from src.system.terminal import fail

EXTRAS = {  # of pyproject.toml, by what they bring
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
    "hydra/sweeper/optuna": "search",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/submitit_local": "slurm",
}
OTHER_PROCESS = re.compile(r"Connection (closed|reset) by peer|ncclRemoteError")  # gloo and NCCL, of one that is gone
MISTAKES = (
    *(ValueError, OSError, FloatingPointError),
    *(HydraException, OmegaConfBaseException, MisconfigurationException),
)


def report_errors(job: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Wrap a job: an expected error or a signal ends it in one line; HYDRA_FULL_ERROR=1 shows the stack trace."""

    @wraps(job)  # Hydra names the job after it
    def guarded_job(cfg: DictConfig) -> None:
        try:
            job(cfg)
        except Exception as error:
            said = memory_reason(error, cfg) or reason(error)
            if said is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            if isinstance(error, OSError) and error.errno in FULL:  # which often names no file and never a disk
                said = str(explain_full_disk(error, Path(error.filename or cfg.paths.run)))
            fail(said)
        except Interrupted as end:
            signals.requeue(end.signum)
            if rank_zero_only.rank:  # type: ignore[attr-defined]  # the first process reports it
                sys.exit(end.status)
            place = cfg.get("table") or cfg.paths.run
            fail(f"{end}; {end.kept or f'what was saved is in {place}'}", end.status)

    return guarded_job


def reason(error: BaseException) -> str | None:
    """Return what a user needs to know of an error; None for an error of ours."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        place = re.search(r"full_key: (\S+)", str(error))
        cause = error.__cause__
        return reason(cause) or f"{place[1] if place else 'configuration'}: {type(cause).__name__}: {cause}"
    if isinstance(error, RuntimeError) and OTHER_PROCESS.search(str(error)):
        return "another process of this run has ended; its message stands above"
    # torch passes on the traceback of a worker as a message, of a RuntimeError if it cannot make the error anew
    worker = re.match(r"Caught (\w+) in DataLoader worker", str(error))
    raised = getattr(builtins, worker[1], None) if worker else None
    if not isinstance(error, MISTAKES) and not (isinstance(raised, type) and issubclass(raised, MISTAKES)):
        return None
    return re.split(r"\n[\w.]*(?:Error|Exception): ", str(error))[-1]


def explain(error: Exception, overrides: list[str], primary: str = "config") -> str:
    """Return the message of an error of Hydra's, with the closest name that exists."""
    text = str(error)
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if key:
        return explain_key(key[1], overrides, primary)
    option = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if option and option[1] in EXTRAS:
        return f"{option[1]} is not installed: pip install '.[{EXTRAS[option[1]]}]'"
    if option:
        folder, _, name = option[1].rpartition("/")
        loader = GlobalHydra.instance().config_loader()
        names = loader.get_group_options(folder, config_name=primary, overrides=overrides)
        return f"no {folder} {name!r}{suggest(name, names)}; there are: {', '.join(names)}"
    if text.startswith("Error merging override") and error.__cause__:
        return f"{text}: {str(error.__cause__).splitlines()[0]}"
    if "Config group override must be" in text:
        return f"{text}; to have none of a group, write logger=[] or callbacks=[]"
    if "missing EQUAL" in text:
        return f"{text.splitlines()[0]}: expected NAME=VALUE"
    return text


def explain_key(key: str, overrides: list[str], primary: str) -> str:
    """Return why there is no such setting: it needs a plus, is given otherwise, or is misspelt.

    If there is, the fault is an entry of the value, as in `trainer={max_step: 3}`.
    """
    if key.startswith("model/") and GlobalHydra.instance().config_loader().get_group_options(key):
        given = next((one for one in overrides if name_of(one) in ("variant", key)), key)
        part = key.removeprefix("model/")
        return f"{given}: this model has no {part} to choose; expected model=mask2former, or a setting of this model"
    others = [override for override in overrides if name_of(override) != key]
    try:
        cfg = compose(primary, others)
    except Exception:  # something else is wrong too; it is reported next time
        cfg = compose(primary)
    for value in (parsed(override).value() for override in overrides if name_of(override) == key):
        for entry in entries_beyond(value, OmegaConf.select(cfg, key)):
            return explain_key(f"{key}.{entry}", others, primary)
    parent, _, name = key.rpartition(".")
    above, _, argument = parent.rpartition(".")
    group = OmegaConf.select(cfg, parent) if parent else None
    parameters = taken_by(cfg, parent)
    if isinstance(group, DictConfig) and "_target_" not in group and argument in taken_by(cfg, above):
        return f"{parent} has no {name!r}{suggest(name, group)}; to add it, write +{key}=..."
    if parent and (other := instead(cfg, parent, group).get(name)):
        return f"{key}: not taken here; use {other.use}"
    if group is not None and name in parameters:
        return f"{key!r} is not in the configuration; {group._target_} takes it all the same: write +{key}=..."
    names = [*settings_below(OmegaConf.to_container(cfg)), *(f"{parent}.{one}" for one in parameters)]
    return f"no setting {key!r}{suggest(key, names)}; `--cfg job` shows all"


def entries_beyond(value: Any, group: Any) -> Iterator[str]:
    """Yield the dotted names of a value's entries that a group of settings does not have."""
    for name, child in value.items() if isinstance(value, dict) and isinstance(group, DictConfig) else ():
        if name not in group:
            yield name
        else:
            yield from (f"{name}.{entry}" for entry in entries_beyond(child, group[name]))


def taken_by(cfg: DictConfig, group: str) -> dict[str, Any]:
    """Return the parameters of what a group of settings makes, by name; none if it makes nothing, or nothing known."""
    try:
        target = OmegaConf.select(cfg, f"{group}._target_") if group else None
        return dict(parameters_of(target, group, cfg.allow)) if target else {}
    except (ValueError, OmegaConfBaseException):
        return {}


def settings_below(node: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted names of all groups and settings in a config."""
    for key, child in node.items() if isinstance(node, dict) else ():
        yield f"{path}{key}"
        yield from settings_below(child, f"{path}{key}.")
