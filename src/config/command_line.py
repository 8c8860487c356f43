"""Read the command line, and check everything before anything runs."""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from src.config.errors import explain
from src.config.overrides import expand_home, name_of, quote
from src.config.schema import check_settings, suggest
from src.config.search_path import refuse_commands, with_search_path
from src.config.sweeps import check_launcher, jobs, sweep_of
from src.config.weights_settings import overrides_from_weights
from src.records.run_folder import claim
from src.system.atomic import check_writable, nearest
from src.system.cpus import processors
from src.system.signals import Interrupted, signals
from src.system.terminal import fail

CONF = Path(__file__).parents[2] / "conf"
PLUGINS = str(Path(__file__).parents[1] / "jobs/plugins")  # where Hydra finds our launchers
GROUPS_WITHOUT_DEFAULT = ("experiment", "sweep")  # Hydra wants a plus before these; people forget it
TIME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")  # the default name of a run folder
OmegaConf.register_new_resolver("cpus", lambda most: min(int(most), processors()), replace=True)
if PLUGINS not in sys.path:
    sys.path.append(PLUGINS)


def run(entry: Callable[[], None], arguments: list[str] | None = None, primary: str = "config") -> None:
    """Run a Hydra entry point with a primary config on the given arguments, or on those of the command line.

    A user's mistake ends it in one line with exit status 2; HYDRA_FULL_ERROR=1 shows where it happened.
    """
    typed = [
        quote_path(add_plus(expand_home(argument))) for argument in (sys.argv[1:] if arguments is None else arguments)
    ]
    asked, _, _ = parse_flags(typed)
    if not (asked.help or asked.hydra_help or asked.info or asked.shell_completion):
        with explained(typed, primary):
            typed = with_search_path(typed)
        _, flags, overrides = parse_flags(typed)
        typed = [*flags, *overrides, *check(overrides, asked.multirun, primary, claims=not asked.cfg)]  # flags first
    sys.argv[1:] = typed
    try:
        with signals.caught():
            entry()
    except Interrupted as end:
        fail(f"{end}; {end.kept}".removesuffix("; "), end.status)


def parse_flags(arguments: list[str]) -> tuple[Namespace, list[str], list[str]]:
    """Return Hydra's flags as parsed and as given, and the overrides; exit with one line for an unknown flag."""
    parser = get_args_parser()
    parser.allow_abbrev = False
    parsed, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        fail(f"{unknown[0]}: no such flag; settings are written NAME=VALUE, for example +experiment=proscale_shapes")
    return parsed, [one for one in arguments if one not in parsed.overrides], parsed.overrides


def add_plus(argument: str) -> str:
    """`experiment=x` as Hydra needs it, `+experiment=x`."""
    return f"+{argument}" if argument.partition("=")[0] in GROUPS_WITHOUT_DEFAULT else argument


def quote_path(argument: str) -> str:
    """`ckpt_path=runs/seed=0/last.ckpt` in quotes, as Hydra needs it, if there is such a file or folder."""
    name, _, value = argument.partition("=")
    special = not name.startswith("-") and re.search(r"[^\w./-]", value)
    return f"{name}={quote(value)}" if special and os.path.exists(value) else argument


@contextmanager
def initialized() -> Iterator[None]:
    """Let Hydra compose; inside an entry point it can already."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield


def check(overrides: list[str], multirun: bool = False, primary: str = "config", claims: bool = False) -> list[str]:
    """Compose and check every job; exit with a helpful message if one is wrong.

    Returns further overrides: those implied by the weights to start from and, if `claims` is set, a run folder of its
    own where folders are named by the time, because two commands may start in the same second.
    """
    with initialized():
        with explained(overrides, primary):
            cfg = compose(primary, next(jobs(overrides)), return_hydra_config=True)
            swept = sweep_of(cfg.hydra, overrides, multirun)
            job_overrides = [overrides] if swept is None else list(jobs(swept))
        settled: list[str] | None = None
        for job in job_overrides:
            with explained(job, primary):
                if swept is not None:
                    cfg = compose(primary, job, return_hydra_config=True)
                before, settled = settled, overrides_from_weights(cfg, job, primary)
                if before not in (None, settled):
                    fail("model.weights: those of one sweep must be of one architecture; start a run for each")
                if settled:
                    cfg = compose(primary, [*job, *settled], return_hydra_config=True)
                check_job(cfg, job, primary, is_swept=swept is not None)
    settled = settled or []
    if settled:
        print(f"model.weights settles: {', '.join(settled)}", file=sys.stderr)
    if claims and swept is None and is_named_by_time(cfg, overrides):
        return [*settled, f"hydra.run.dir={quote(str(claim(Path(cfg.hydra.run.dir))))}"]
    return settled


@contextmanager
def explained(overrides: list[str], primary: str) -> Iterator[None]:
    """Exit with an explanation if these overrides cannot be composed or fail a check."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        fail(explain(error, overrides, primary))


def check_job(cfg: DictConfig, overrides: list[str], primary: str, is_swept: bool) -> None:
    """Check the composed settings of one job, or of a run that is not part of a sweep."""
    known = roots(primary)
    if unknown := set(cfg) - known:
        fail(f"no setting {min(unknown)!r}{suggest(min(unknown), known)}")
    refuse_commands(cfg, overrides, primary)
    if is_swept:
        check_launcher(cfg, trains=primary != "cost")
    folder = Path(cfg.hydra.sweep.dir if is_swept else cfg.hydra.run.dir)
    if cfg.hydra.output_subdir is not None or not folder.exists():  # otherwise nothing is written there
        check_run_folder(folder)
    check_settings(OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(known - {"hydra"}))))


def is_named_by_time(cfg: DictConfig, overrides: list[str]) -> bool:
    """Whether the run folder is written to and has the default name, which is the time of the start."""
    chosen = {"hydra.run.dir", "out"} & set(map(name_of, overrides))
    by_time = TIME.fullmatch(Path(cfg.hydra.run.dir).name)
    return not chosen and by_time is not None and cfg.hydra.output_subdir is not None


def configure(overrides: list[str], primary: str = "config") -> DictConfig:
    """Return the configuration that these overrides compose to. Raises ValueError if they do not."""
    with initialized():  # to explain, too
        try:
            cfg = compose(primary, overrides, return_hydra_config=True)
            if settled := overrides_from_weights(cfg, overrides, primary):
                cfg = compose(primary, [*overrides, *settled], return_hydra_config=True)
            with flag_override(cfg, ["struct", "readonly"], False):
                del cfg["hydra"]
            return cfg
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error, overrides, primary)) from error


@cache
def roots(primary: str) -> set[str]:
    """The names of all settings and groups at the top level."""
    return {*map(str, compose("config")), *map(str, compose(primary)), "hydra"}


def check_run_folder(folder: Path) -> None:
    """Raise OSError if nothing can be written in a run folder, without making it."""
    try:
        check_writable(folder)
    except OSError as error:
        place = nearest(folder)
        raise OSError(f"run folder {folder}: nothing can be written in {place} ({error.strerror})") from error
