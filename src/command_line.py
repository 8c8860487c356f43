"""What a user types, made fit for Hydra; what goes wrong, said in one line."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.settings import check_settings, parameters_of, suggest
from src.starting_point import settle
from src.sweeps import check_alone, jobs, sweep_of
from src.weights.files import load

CONF = Path(__file__).parents[1] / "conf"
PLUGINS = str(Path(__file__).parent / "plugins")  # where Hydra finds what runs sweeps
EXTRAS = {  # of pyproject.toml, by what they bring
    "hydra/sweeper/optuna": "search",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/submitit_local": "slurm",
}
GROUPS_WITHOUT_DEFAULT = ("experiment", "sweep")  # Hydra wants a plus before these; people forget it
# Of a checkpoint's settings: flags, where and how to log, the task, which is the command's, and what it started from.
NOT_TAKEN_UP = ("-", "hydra", "ckpt_path", "logger", "callbacks", "paths", "task=", "model.weights", "model.drop_class")
if PLUGINS not in sys.path:
    sys.path.append(PLUGINS)
MISTAKES = (
    ValueError,
    OSError,
    FloatingPointError,
    HydraException,
    OmegaConfBaseException,
    MisconfigurationException,
)


def run(entry: Callable[[], None], arguments: list[str] | None = None, primary: str = "config") -> None:
    """Run a Hydra entry point, whose primary config has a name, on the command line's arguments or the given ones.

    Mistakes that a user can make end in one line and exit status 2; set HYDRA_FULL_ERROR=1 for where they happened.
    """
    typed = [quote_path(add_plus(argument)) for argument in (sys.argv[1:] if arguments is None else arguments)]
    sys.argv[1:] = sorted(typed, key=lambda argument: argument not in ("-m", "--multirun"))  # Hydra wants flags first
    flags = get_args_parser().parse_args()
    if not (flags.help or flags.hydra_help or flags.info or flags.shell_completion):
        sys.argv += check(flags.overrides, flags.multirun, primary)
    entry()


def add_plus(argument: str) -> str:
    """`experiment=x` as Hydra needs it, `+experiment=x`."""
    group = argument.split("=")[0]
    return f"+{argument}" if group in GROUPS_WITHOUT_DEFAULT else argument


def quote_path(argument: str) -> str:
    """`ckpt_path=runs/seed=0/last.ckpt` as Hydra reads it, in quotes, where there is such a file or folder."""
    name, _, value = argument.partition("=")
    return f"{name}={quote(value)}" if re.search(r"[^\w./-]", value) and os.path.exists(value) else argument


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


def explain(error: Exception, overrides: list[str], primary: str = "config") -> str:
    """Hydra's complaint, with the closest name that exists."""
    text = str(error)
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if key:
        return explain_key(key[1], overrides, primary)
    option = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if option and option[1] in EXTRAS:
        return f"{option[1]} is not installed: pip install '.[{EXTRAS[option[1]]}]'"
    if option:
        folder, _, name = option[1].rpartition("/")
        names = sorted(file.stem for file in (CONF / folder).glob("*.yaml"))
        return f"no {folder} {name!r}{suggest(name, names)}; there are: {', '.join(names)}"
    if text.startswith("Error merging override") and error.__cause__:
        return f"{text}: {str(error.__cause__).splitlines()[0]}"
    if "Config group override must be" in text:
        return f"{text}; to have none of a group, write ~logger or callbacks=[]"
    if "missing EQUAL" in text:
        return f"{text.splitlines()[0]}: expected NAME=VALUE"
    return text


def explain_key(key: str, overrides: list[str], primary: str) -> str:
    """Why there is no such setting: it needs a plus, or is misspelt."""
    others = [o for o in overrides if o.split("=")[0].lstrip("+~") != key]
    try:
        cfg = compose(primary, others)
    except Exception:  # something else is wrong too, and will be said next
        cfg = compose(primary)
    parent, _, name = key.rpartition(".")
    try:
        target = OmegaConf.select(cfg, f"{parent}._target_") if parent else None
        parameters = parameters_of(target, parent) if target else {}
    except (ValueError, OmegaConfBaseException):
        parameters = {}
    if name in parameters:
        return f"{key!r} is not in the configuration; {target} takes it all the same: write +{key}=..."
    names = every_key(OmegaConf.to_container(cfg, resolve=False))
    return f"no setting {key!r}{suggest(key, [*names, *(f'{parent}.{p}' for p in parameters)])}; `--cfg job` shows all"


def every_key(node: Any, path: str = "") -> list[str]:
    """All settings of a config, in dots."""
    if not isinstance(node, dict):
        return [path]
    below = [key for name, child in node.items() for key in every_key(child, f"{path}.{name}" if path else str(name))]
    return [path, *below] if path else below


def saved_overrides(arguments: list[str], below_experiment: bool = False, setting: str = "ckpt_path") -> list[str]:
    """As `with_saved`; mistakes end in one line."""
    try:
        return with_saved(arguments, below_experiment, setting)
    except ValueError as error:
        fail(str(error))


def with_saved(arguments: list[str], below_experiment: bool = False, setting: str = "ckpt_path") -> list[str]:
    """The settings that the checkpoint some setting names was trained with, then what was typed.

    An experiment that was typed stands alone, or, if asked for, in the place of the checkpoint's own. Raises ValueError
    for a file that is no checkpoint of a whole model of ours.
    """
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
    return [*(o for o in saved if not o.lstrip("+~ ").startswith(left) and o not in arguments), *arguments]


def newest(runs: Path, name: str) -> Path | None:
    """The last checkpoint of the newest run of a name."""
    found = (runs / name).rglob("checkpoints/last.ckpt")
    return max(found, key=lambda file: file.stat().st_mtime, default=None)


def guarded(job: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """A job whose expected errors end in one line."""

    @wraps(job)  # Hydra names the job after it
    def guarded_job(cfg: DictConfig) -> None:
        try:
            job(cfg)
        except Exception as error:
            said = reason(error)
            if said is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            nameless = isinstance(error, OSError) and error.errno and not error.filename  # a full disk names no file
            fail(f"{said} (run folder {cfg.paths.run})" if nameless else said)
        except (KeyboardInterrupt, SystemExit) as error:
            if isinstance(error.__context__ or error, KeyboardInterrupt):  # Lightning exits on Ctrl-C
                fail(f"interrupted; what was saved is in {cfg.get('table') or cfg.paths.run}", 130)
            raise

    return guarded_job


def reason(error: BaseException) -> str | None:
    """What a user needs to hear of an error; None for one that is ours to mend."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        place = re.search(r"full_key: (\S+)", str(error))
        cause = error.__cause__
        return reason(cause) or f"{place[1] if place else 'configuration'}: {type(cause).__name__}: {cause}"
    if not isinstance(error, MISTAKES):
        return None
    # of an error in a worker process, torch passes on the whole traceback as the message
    return re.split(r"\n[\w.]*(?:Error|Exception): ", str(error))[-1]


def fail(message: str, status: int = 2) -> NoReturn:
    """Say what is wrong, in one line, and stop."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
