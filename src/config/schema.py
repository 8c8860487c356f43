"""What a config may say: which classes it may name, what these take, and values as `src/config/rules.py` has them."""

import difflib
import inspect
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.utils import get_object

from src.config.home import refuse_home
from src.config.rules import RULES
from src.config.unsupported import refused

ROOMS = ("data", "models", "losses", "metrics", "tasks", "callbacks", "loggers", "prediction")
OURS = tuple(f"src.{room}." for room in ROOMS)
FRAMEWORKS = (
    "torch.nn.",
    "torch.optim.",
    "torchvision.",
    *(
        f"lightning.pytorch.{part}."
        for part in ("callbacks", "loggers", "plugins", "profilers", "strategies", "trainer")
    ),
)


PACKAGES = ("src.", "torch.", "torchvision.", "lightning.")  # which hold these
TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


def check_settings(settings: Any, path: str = "", allow: Sequence[str] = ()) -> None:
    """Refuse what no class would take, or would take and get wrong; what is not resolved yet (`${}`) is passed over.

    Args:
        allow: packages whose classes may be named beside ours and the frameworks'; of the whole, its own setting says.

    Raises:
        ValueError: naming the setting, its value and what was expected.
    """
    if isinstance(settings, list):
        for i, value in enumerate(settings):
            check_settings(value, f"{path}[{i}]", allow)
    if not isinstance(settings, dict):
        return
    if not path and "allow" in settings:
        allow = settings["allow"]
        if not RULES["allow"].holds(allow):  # it is relied on before its turn comes
            raise ValueError(f"allow={spell(allow)}: expected {RULES['allow'].expected}")
    for name, value, use in refused(settings) if not path else ():
        raise ValueError(f"{name}={spell(value)}: not taken here; use {use}")
    target = settings.get("_target_")
    parameters = None if target is None else parameters_of(target, path, allow)
    ruled = not path or str(target).startswith(("src.", "lightning.Trainer"))
    for key, value in settings.items():
        here = f"{path}.{key}".lstrip(".")
        if parameters is not None and not str(key).startswith("_"):
            check_parameter(here, str(key), str(target).rpartition(".")[-1], parameters)
        if isinstance(value, str):
            refuse_home(here, value)
        if value == "???":
            raise ValueError(f"{here}: has no default, write {here}=...")
        if isinstance(value, dict) or (isinstance(value, str) and "${" in value):
            pass
        elif ruled and key in RULES:
            if not RULES[key].holds(value):
                raise ValueError(f"{here}={spell(value)}: expected {RULES[key].expected}")
        elif parameters is not None and key in parameters:
            check_type(here, value, parameters[key].annotation)
        check_settings(value, here, allow)


@contextmanager
def silenced(name: str) -> Iterator[None]:
    """A place where a logger says nothing; Hydra logs the stack trace of what it raises."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def parameters_of(target: Any, path: str = "", allow: Sequence[str] = ()) -> dict[str, inspect.Parameter]:
    """What a class or function takes, by name.

    Raises ValueError unless it is ours, one of the frameworks', or of a package that is allowed.
    """
    own = tuple(f"{package}." for package in allow)
    allowed = (*OURS, *FRAMEWORKS, *own)
    refusal = f"expected a class or function below {', '.join(allowed)}"
    if not isinstance(target, str) or not target.startswith((*PACKAGES, *own)):
        package = str(target).partition(".")[0]
        raise ValueError(f"{path}._target_={target}: write allow=[{package}] if you trust {package}; {refusal}")
    try:
        with silenced("hydra.utils"):
            found = get_object(target)
    except Exception as error:
        where = f", looked in {Path.cwd()} and PYTHONPATH" if own else ""
        raise ValueError(f"{path}._target_={target}: no such class or function{where} ({error})") from error
    if not f"{found.__module__}.".startswith(allowed):  # where it comes from, by whichever name it goes
        raise ValueError(f"{path}._target_={target}: {refusal}")
    try:
        return dict(inspect.signature(found, eval_str=True).parameters)
    except NameError:  # types that are imported for type checkers only
        return dict(inspect.signature(found).parameters)


def check_parameter(here: str, key: str, owner: str, parameters: dict[str, inspect.Parameter]) -> None:
    """Refuse an argument that a class or function does not take."""
    if key in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return
    names = [name for name in parameters if name not in ("self", "args")]
    hint = suggest(key, names) or f", it takes {', '.join(names)}"
    raise ValueError(f"no setting {here!r}: {owner} takes no {key!r}{hint}")


def check_type(here: str, value: Any, annotation: Any) -> None:
    """Refuse a value that is not of a type its annotation names, where it names plain types only."""
    union = isinstance(annotation, UnionType) or get_origin(annotation) is Union
    options = get_args(annotation) if union else (annotation,)
    if not all(isinstance(option, type) and option in TYPES for option in options):
        return
    wider = (*options, int) if float in options else options
    if type(value) not in wider:
        raise ValueError(f"{here}={spell(value)}: expected {' or '.join(TYPES[option] for option in options)}")


def quote(value: str) -> str:
    """A text as Hydra reads it, whatever it contains."""
    return QuotedString(value, Quote.single).with_quotes()


def spell(value: Any) -> str:
    """A value as one types it."""
    return {None: "null", True: "true", False: "false"}[value] if value is None or type(value) is bool else str(value)


def suggest(name: str, names: Iterable[str]) -> str:
    """The closest of some names, as an appendix to a message."""
    names = sorted(names)
    close = [n for n in names if n.endswith(f".{name}")] or difflib.get_close_matches(name, names, 1, 0.5)
    return f", did you mean {close[0]!r}?" if close else ""
