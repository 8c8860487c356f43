"""What a config may say: which classes it may name, the arguments these take, and values as `rules.py` has them."""

import difflib
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from hydra._internal.utils import _locate  # hydra.utils.get_object logs the stack trace of what it raises

from src.config.overrides import refuse_home, spell
from src.config.rules import RULES, Rule
from src.config.unsupported import refused

ROOMS = ("data", "models", "losses", "metrics", "tasks", "callbacks", "loggers", "prediction", "exporting")
OF_LIGHTNING = ("callbacks", "loggers", "plugins", "profilers", "strategies", "trainer")
TRUSTED = (  # beginnings of the classes that a config may name
    *(f"src.{room}." for room in ROOMS),
    *("torch.nn.", "torch.optim.", "torchvision."),
    *(f"lightning.pytorch.{part}." for part in OF_LIGHTNING),
)
PACKAGES = ("src.", "torch.", "torchvision.", "lightning.")  # which hold these
TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


def check_settings(settings: Any, path: str = "", allow: Sequence[str] = ()) -> None:
    """Raise ValueError for a setting that no class takes, or takes wrongly, with its value and what was expected.

    Unresolved values (`${}`) pass.

    Args:
        allow: packages whose classes may be named too; for a whole config, its own setting `allow` counts.
    """
    if isinstance(settings, list):
        for i, value in enumerate(settings):
            check_settings(value, f"{path}[{i}]", allow)
    if not isinstance(settings, dict):
        return
    if not path:
        if "allow" in settings:
            allow = settings["allow"]
            check_value("allow", allow, RULES["allow"])  # relied on before its turn comes
        for name, value, use in refused(settings):
            raise ValueError(f"{name}={spell(value)}: not taken here; use {use}")
    target = settings.get("_target_")
    parameters = {} if target is None else parameters_of(target, path, allow)
    ruled = not path or str(target).startswith(("src.", "lightning.Trainer"))
    for key, value in settings.items():
        here = f"{path}.{key}".lstrip(".")
        if target is not None and not str(key).startswith("_"):
            check_parameter(here, str(key), str(target).rpartition(".")[-1], parameters)
        if isinstance(value, str):
            refuse_home(here, value)
        if value == "???":
            raise ValueError(f"{here}: has no default, write {here}=...")
        if not isinstance(value, dict) and not (isinstance(value, str) and "${" in value):
            if ruled and key in RULES:
                check_value(here, value, RULES[key])
            elif key in parameters:
                check_value(here, value, rule_of(parameters[key].annotation))
        check_settings(value, here, allow)


def check_value(here: str, value: Any, rule: Rule | None) -> None:
    if rule is not None and not rule.holds(value):
        raise ValueError(f"{here}={spell(value)}: expected {rule.expected}")


def rule_of(annotation: Any) -> Rule | None:
    """What an annotation of plain types takes; None for any other annotation."""
    union = isinstance(annotation, UnionType) or get_origin(annotation) is Union
    types = get_args(annotation) if union else (annotation,)
    if not all(isinstance(one, type) and one in TYPES for one in types):
        return None
    wider = (*types, int) if float in types else types
    return Rule(" or ".join(TYPES[one] for one in types), lambda value: type(value) in wider)


def check_parameter(here: str, key: str, owner: str, parameters: dict[str, inspect.Parameter]) -> None:
    """Raise ValueError for an argument that a class or function does not take."""
    if key in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return
    names = [name for name in parameters if name not in ("self", "args")]
    hint = suggest(key, names) or f", it takes {', '.join(names)}"
    raise ValueError(f"no setting {here!r}: {owner} takes no {key!r}{hint}")


def parameters_of(target: Any, path: str = "", allow: Sequence[str] = ()) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class or function by name.

    Raises ValueError unless it is ours, one of the frameworks', or of a package in `allow`.
    """
    own = tuple(f"{package}." for package in allow)
    allowed = (*TRUSTED, *own)
    refusal = f"expected a class or function below {', '.join(allowed)}"
    if not isinstance(target, str) or not target.startswith((*PACKAGES, *own)):
        package = str(target).partition(".")[0]
        raise ValueError(f"{path}._target_={target}: write allow=[{package}] if you trust {package}; {refusal}")
    try:
        found = _locate(target)
    except Exception as error:
        where = f", looked in {Path.cwd()} and PYTHONPATH" if own else ""
        raise ValueError(f"{path}._target_={target}: no such class or function{where} ({error})") from error
    if not f"{found.__module__}.".startswith(allowed):  # a name may lead to something from elsewhere
        raise ValueError(f"{path}._target_={target}: {refusal}")
    return signature_of(found)


def signature_of(found: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class or function; where a class of ours has `**others`, those of its base class."""
    try:
        parameters = dict(inspect.signature(found, eval_str=True).parameters)
    except NameError:  # types that are imported for type checkers only
        parameters = dict(inspect.signature(found).parameters)
    others = [name for name, one in parameters.items() if one.kind is one.VAR_KEYWORD]
    if others and inspect.isclass(found) and found.__module__.startswith("src."):
        del parameters[others[0]]
        owner = next(one for one in found.__mro__ if "__init__" in vars(one))
        parameters = signature_of(owner.__mro__[1]) | parameters
    return parameters


def suggest(name: str, names: Iterable[str]) -> str:
    """The closest of some names, as an appendix to a message."""
    names = sorted(names)
    close = [n for n in names if n.endswith(f".{name}")] or difflib.get_close_matches(name, names, 1, 0.5)
    return f", did you mean {close[0]!r}?" if close else ""
