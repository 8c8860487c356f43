"""What a user types, made fit for Hydra and checked before anything runs."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.ending import Interrupted, signals
from src.home import expand_home
from src.mistakes import explain, fail
from src.search_path import names_search_path, refuse_commands, remembered, with_search_path
from src.settings import check_settings, suggest
from src.starting_point import settle
from src.sweeps import check_alone, check_subdir, jobs, sweep_of
from src.weights.files import load

CONF = Path(__file__).parents[1] / "conf"
PLUGINS = str(Path(__file__).parent / "plugins")  # where Hydra finds what runs sweeps
GROUPS_WITHOUT_DEFAULT = ("experiment", "sweep")  # Hydra wants a plus before these; people forget it
# Of a checkpoint's settings: flags, where and how to log, the task, which is the command's, and what it started from.
NOT_TAKEN_UP = (
    *("-", "hydra", "ckpt_path", "logger", "callbacks", "paths", "task=", "model.weights", "model.drop_class"),
    "allow",  # a checkpoint does not say for itself whose classes may run
)
if PLUGINS not in sys.path:
    sys.path.append(PLUGINS)


def run(entry: Callable[[], None], arguments: list[str] | None = None, primary: str = "config") -> None:
    """Run a Hydra entry point, whose primary config has a name, on the command line's arguments or the given ones.

    Mistakes that a user can make end in one line and exit status 2; set HYDRA_FULL_ERROR=1 for where they happened.
    """
    typed = [
        quote_path(add_plus(expand_home(argument))) for argument in (sys.argv[1:] if arguments is None else arguments)
    ]
    typed.sort(key=lambda argument: argument not in ("-m", "--multirun"))  # Hydra wants flags first
    flags = get_args_parser().parse_args(typed)
    if not (flags.help or flags.hydra_help or flags.info or flags.shell_completion):
        try:
            typed = with_search_path(typed)
        except ValueError as error:
            fail(str(error))
        typed += check(get_args_parser().parse_args(typed).overrides, flags.multirun, primary)
    sys.argv[1:] = typed
    try:
        with signals.caught():
            entry()
    except Interrupted as end:
        fail(f"{end}; {end.kept}".removesuffix("; "), end.status)


def add_plus(argument: str) -> str:
    """`experiment=x` as Hydra needs it, `+experiment=x`."""
    group = argument.split("=")[0]
    return f"+{argument}" if group in GROUPS_WITHOUT_DEFAULT else argument


def quote_path(argument: str) -> str:
    """`ckpt_path=runs/seed=0/last.ckpt` as Hydra reads it, in quotes, where there is such a file or folder."""
    name, _, value = argument.partition("=")
    special = not name.startswith("-") and re.search(r"[^\w./-]", value)
    return f"{name}={quote(value)}" if special and os.path.exists(value) else argument


def quote(value: str) -> str:
    """A value as Hydra reads it, whatever it contains."""
    return "'" + value.replace("'", "\\'") + "'"


@contextmanager
def initialized() -> Iterator[None]:
    """Hydra, so that it can compose; inside of an entry point it can already."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield


def check(overrides: list[str], multirun: bool = False, primary: str = "config") -> list[str]:
    """Compose before anything runs, so that what is misspelt or cannot be gets an answer that helps.

    Returns further overrides: what the weights to start from settle.
    """
    with initialized():
        known = roots(primary)
        job = overrides
        try:
            settled: list[str] | None = None
            swept = sweep_of(overrides, multirun, primary)
            for job in [overrides] if swept is None else jobs(swept):
                cfg = compose(primary, job, return_hydra_config=True)
                before, settled = settled, settle(cfg, job, primary)
                if before not in (None, settled):
                    fail("model.weights: those of one sweep must be of one architecture; start a run for each")
                if settled:
                    cfg = compose(primary, [*job, *settled], return_hydra_config=True)
                if unknown := set(cfg) - known:
                    fail(f"no setting {min(unknown)!r}{suggest(min(unknown), known)}")
                refuse_commands(cfg, job, primary)
                if swept is not None:
                    check_subdir(cfg)
                if swept is not None and primary != "cost":  # which trains nothing
                    check_alone(cfg)
                folder = Path(cfg.hydra.run.dir if swept is None else cfg.hydra.sweep.dir)
                if cfg.hydra.output_subdir is not None or not folder.exists():  # else nothing is written there
                    check_writable(folder)
                check_settings(OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(known - {"hydra"}))))
        except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
            fail(explain(error, job, primary))
    if settled:
        print(f"model.weights settles: {', '.join(settled)}", file=sys.stderr)
    return settled or []


def configure(overrides: list[str], primary: str = "config") -> DictConfig:
    """The configuration that a command line with these overrides has. Raises ValueError for what it would refuse."""
    with initialized():  # to explain, too
        try:
            settled = settle(compose(primary, overrides, return_hydra_config=True), overrides, primary)
            return compose(primary, [*overrides, *settled])
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error, overrides, primary)) from error


@cache
def roots(primary: str) -> set[str]:
    """The first names of all settings."""
    return {*map(str, compose("config")), *map(str, compose(primary)), "hydra"}


def check_writable(folder: Path) -> None:
    """Refuse a run folder that cannot be made, without making it."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        tempfile.TemporaryDirectory(dir=there).cleanup()
    except OSError as error:
        raise OSError(f"run folder {folder}: nothing can be written in {there} ({error.strerror})") from error


def saved_overrides(arguments: list[str], below_experiment: bool = False, setting: str = "ckpt_path") -> list[str]:
    """As `with_saved`; mistakes end in one line."""
    try:
        return with_saved(arguments, below_experiment, setting)
    except ValueError as error:
        fail(str(error))


def with_saved(arguments: list[str], below_experiment: bool = False, setting: str = "ckpt_path") -> list[str]:
    """The settings that the checkpoint some setting names was trained with, then what was typed.

    An experiment that was typed stands alone, or, if asked for, in the place of the checkpoint's own. Folders of
    configuration that the checkpoint names are searched where none were typed, but allow no classes. Raises ValueError
    for a file that is no checkpoint of a whole model of ours.
    """
    arguments = with_search_path([*map(expand_home, arguments)])
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    file = Path(given.get(setting, ""))
    if file == Path("last"):
        file = newest(Path(given.get("paths.runs", "runs")), given.get("name", "run")) or file
    experiment = bool({"+experiment", "experiment"} & set(given))
    if (experiment and not below_experiment) or not file.is_file():
        return arguments
    left = (*NOT_TAKEN_UP, "experiment", "name") if experiment else NOT_TAKEN_UP
    content = load(file, setting, mmap=True)
    try:
        settings = content["hyper_parameters"]
        gate = settings.get("gate")
        saved = [str(override) for override in ([] if gate else settings["overrides"])]
    except Exception as error:
        raise ValueError(
            f"{setting}={file}: not a checkpoint of this project; weights from elsewhere go to model.weights="
        ) from error
    if gate is not None:
        raise ValueError(f"{setting}={file}: a gate; expected its parent {gate['source']}, and gate={file} to run it")
    kept = [o for o in saved if not o.lstrip("+~ ").startswith(left) and o not in arguments]
    if names_search_path(arguments) or not (folders := remembered(saved, f"{setting}={file}")):
        return [*kept, *arguments]
    return [*folders, *kept, *([] if "allow" in given else ["allow=[]"]), *arguments]


def newest(runs: Path, name: str) -> Path | None:
    """The last checkpoint of the newest run of a name."""
    found = (runs / name).rglob("checkpoints/last.ckpt")
    return max(found, key=lambda file: file.stat().st_mtime, default=None)
