"""What a user types, made fit for Hydra; what goes wrong, said in one line."""

import difflib
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import NoReturn

import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONF = Path(__file__).parents[1] / "conf"
GROUPS_WITHOUT_DEFAULT = ("experiment", "sweep")  # Hydra wants a plus before these; people forget it


def run(entry: Callable[[], None], arguments: list[str] | None = None) -> None:
    """Run a Hydra entry point on the command line's arguments, or the given ones.

    Mistakes that a user can make end in one line and exit status 2; set HYDRA_FULL_ERROR=1 for where they happened.
    """
    typed = [add_plus(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
    sys.argv[1:] = typed
    if not any(argument.startswith(("-h", "--h", "--i", "--shell", "-sc")) for argument in typed):
        check(typed)
    entry()


def add_plus(argument: str) -> str:
    """`experiment=x` as Hydra needs it, `+experiment=x`."""
    group = argument.split("=")[0]
    return f"+{argument}" if group in GROUPS_WITHOUT_DEFAULT else argument


def check(arguments: list[str]) -> None:
    """Compose once before anything runs, so that a misspelt name gets an answer that helps."""
    overrides = [a for a in arguments if not a.startswith("-") and "=" in a]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            first = [first_choice(override) for override in overrides]
            cfg = compose("config", first)
            known = set(compose("config"))
        except (HydraException, OmegaConfBaseException) as error:
            fail(explain(error))
    unknown = set(cfg) - known
    if unknown:
        fail(f"unknown setting{suggest(min(unknown), known)}")


def first_choice(override: str) -> str:
    """One value of a sweep, the override itself otherwise."""
    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return override
    return f"{parsed.get_key_element()}={next(parsed.sweep_string_iterator())}"


def explain(error: Exception) -> str:
    """Hydra's complaint, with the closest name that exists."""
    text = str(error)
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if key:
        return f"no setting {key[1]!r}{suggest(key[1], every_key())}; `--cfg job` shows all"
    option = re.search(r"Could not find '([^']+)'", text)
    if option:
        folder, _, name = option[1].rpartition("/")
        names = sorted(file.stem for file in (CONF / folder).glob("*.yaml"))
        return f"no {folder} {name!r}{suggest(name, names)}; there are: {', '.join(names)}"
    return text


def every_key() -> list[str]:
    """All settings of the default config, in dots."""

    def walk(node: object, path: str) -> list[str]:
        if not isinstance(node, dict):
            return [path]
        below = [key for name, child in node.items() for key in walk(child, f"{path}.{name}" if path else str(name))]
        return [path, *below] if path else below

    return walk(OmegaConf.to_container(compose("config"), resolve=False), "")


def suggest(name: str, names: list[str] | set[str]) -> str:
    """The closest of some names, as an appendix to a message."""
    close = difflib.get_close_matches(name, sorted(names), 1, 0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def saved_overrides(arguments: list[str]) -> list[str]:
    """The settings a checkpoint was trained with, then what was typed, unless an experiment was typed."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    file = Path(given.get("ckpt_path", ""))
    if {"+experiment", "experiment"} & set(given) or not file.is_file():
        return arguments
    try:
        checkpoint = torch.load(file, "cpu", weights_only=True, mmap=True)
        saved = checkpoint["hyper_parameters"]["overrides"]
    except Exception as error:
        fail(f"ckpt_path={file}: not a checkpoint of this project ({str(error).splitlines()[0]})")
    mine = [o for o in saved if not o.lstrip("+~").startswith(("hydra", "ckpt_path", "logger", "paths"))]
    return [*mine, *arguments]


def guarded(job: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """A job whose expected errors end in one line."""

    @wraps(job)  # Hydra names the job after it
    def guarded_job(cfg: DictConfig) -> None:
        try:
            job(cfg)
        except Exception as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            cause: BaseException = error
            while cause.__cause__ is not None and not isinstance(cause, (ValueError, FileNotFoundError)):
                cause = cause.__cause__
            if not isinstance(cause, (ValueError, FileNotFoundError, FloatingPointError)):
                raise
            fail(str(cause).split("Error: ")[-1] if "Original Traceback" in str(cause) else str(cause))

    return guarded_job


def fail(message: str) -> NoReturn:
    """Say what is wrong and stop."""
    print(f"error: {message.strip()}", file=sys.stderr)
    sys.exit(2)
