"""What a config may say: which classes it may name, what these take, and which values can be."""

import difflib
import inspect
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.utils import get_object

from src.arguments import refused
from src.home import refuse_home

OURS = tuple(f"src.{room}." for room in ("data", "models", "losses", "metrics", "tasks", "callbacks", "loggers"))
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
NAME_OF_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class Rule(NamedTuple):
    """What settings of some name may be."""

    expected: str
    holds: Callable[[Any], bool]


def is_whole(value: Any, least: int = 1) -> bool:
    return type(value) is int and value >= least


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def is_list(value: Any, least: int) -> bool:
    return isinstance(value, list) and all(is_whole(one, least) for one in value)


COUNT = Rule("a whole number from 1", is_whole)
FROM_ZERO = Rule("a whole number from 0", lambda value: is_whole(value, 0))
SHARE = Rule("a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1)
NOT_NEGATIVE = Rule("a number, 0 or more", lambda value: is_number(value) and value >= 0)

RULES = {  # by name: one name means one thing, wherever it stands
    **dict.fromkeys(("dim", "dim_feedforward", "num_queries", "num_heads", "num_layers", "num_points"), COUNT),
    **dict.fromkeys(("batch_size", "eval_batch_size", "max_steps", "num_scenes", "patience", "num_instances"), COUNT),
    **dict.fromkeys(("images", "rounds"), COUNT),
    **dict.fromkeys(("num_workers", "count", "log_every_n_steps", "hidden"), FROM_ZERO),
    **dict.fromkeys(("object_threshold", "overlap_threshold", "importance_share", "void", "crowd", "flip"), SHARE),
    **dict.fromkeys(("class_weight", "mask_weight", "dice_weight", "no_object_weight", "weight_decay"), NOT_NEGATIVE),
    "backbone_lr_multiplier": NOT_NEGATIVE,
    "inputs": Rule(
        "a list of gate inputs, none twice, for example [mean32, std32]",
        lambda v: isinstance(v, list) and v != [] and all(isinstance(x, str) for x in v) and len(set(v)) == len(v),
    ),
    "beta": Rule("a number, 0 or more, or null", lambda v: v is None or (is_number(v) and v >= 0)),
    "betas": Rule(
        "a list of numbers, 0 or more, none twice, for example [0.001, 0.01]",
        lambda v: isinstance(v, list) and v != [] and all(map(NOT_NEGATIVE.holds, v)) and len(set(v)) == len(v),
    ),
    "budget_gflops": Rule("a number above 0, or null", lambda v: v is None or (is_number(v) and v > 0)),
    "temperature": Rule("a number above 0", lambda value: is_number(value) and value > 0),
    "holdout": Rule("a number above 0 and below 1", lambda value: is_number(value) and 0 < value < 1),
    "target": Rule("exit, soft or quality", lambda v: isinstance(v, str) and v in ("exit", "soft", "quality")),
    "table": Rule("the folder of an exit table, or null", lambda v: v is None or (isinstance(v, str) and v != "")),
    "num_classes": Rule("a whole number from 1, or null", lambda v: v is None or is_whole(v)),
    "split": Rule("train, val or both", lambda v: isinstance(v, str) and v in ("train", "val", "both")),
    "samples": FROM_ZERO,
    "decode": Rule("true or false", lambda v: isinstance(v, bool)),
    "at_once": Rule("a whole number from 1, or null", lambda v: v is None or is_whole(v)),
    "on_failure": Rule("continue or stop", lambda v: isinstance(v, str) and v in ("continue", "stop")),
    "shard_size": COUNT,
    "ignore": Rule("a list of whole numbers from 0, for example [255]", lambda value: is_list(value, 0)),
    "image_suffixes": Rule(
        "a list of how names end, for example [.jpg, .png]",
        lambda v: isinstance(v, list) and v != [] and all(isinstance(x, str) and x != "" for x in v),
    ),
    "mask_suffix": Rule("how names end, for example .png", lambda v: isinstance(v, str) and v != ""),
    "exits_per_step": Rule("a whole number from 1, or all", lambda v: is_whole(v) or v == "all"),
    "alpha": Rule("1, k or k*k/10", lambda v: type(v) in (int, str) and str(v) in ("1", "k", "k*k/10")),
    "lr": Rule("a number above 0", lambda value: is_number(value) and value > 0),
    "gradient_clip_val": Rule("a number above 0, or null", lambda v: v is None or (is_number(v) and v > 0)),
    "batch_size_per_device": Rule("a whole number from 1, or null", lambda v: v is None or is_whole(v)),
    "validate_every": Rule("a whole number from 1, or null", lambda v: v is None or is_whole(v)),
    "max_time": Rule(
        "days:hours:minutes:seconds, for example 00:12:00:00, or null",
        lambda v: v is None or (isinstance(v, str) and re.fullmatch(r"\d+(:\d\d){3}", v) is not None),
    ),
    "deterministic": Rule("true, false, warn or null", lambda v: v in (True, False, "warn", None)),
    "seed": Rule("a whole number from 0 to 4294967295", lambda v: is_whole(v, 0) and v < 2**32),
    "schedule": Rule(
        "a list of whole numbers from 0, the layers with 1, 2 and 3 levels alive, for example [0, 0, 6] or [3, 3, 3]",
        lambda v: is_list(v, 0),
    ),
    "exits": Rule("a list of depths from 1, or null for the last", lambda v: v is None or (is_list(v, 1) and v != [])),
    "exit": Rule("a whole number from 1, or null", lambda v: v is None or is_whole(v)),
    "scales": Rule(
        "a list of numbers above 0, for example [0.5, 1.0, 1.5]",
        lambda v: isinstance(v, list) and v != [] and all(is_number(x) and x > 0 for x in v),
    ),
    "max_pixels": COUNT,
    "photos": Rule(
        "a list of files, folders or patterns", lambda v: isinstance(v, list) and all(isinstance(x, str) for x in v)
    ),
    "outputs": Rule(
        "some of overlays, panoptic, instances, semantic",
        lambda v: isinstance(v, list) and set(map(str, v)) <= {"overlays", "panoptic", "instances", "semantic"},
    ),
    "mirror": Rule("true or false", lambda v: type(v) is bool),
    "categories": Rule(
        "the name of a benchmark, a file, or null", lambda v: v is None or (isinstance(v, str) and v != "")
    ),
    "image_size": Rule("[height, width], both from 32", lambda v: is_list(v, 32) and len(v) == 2),
    "sizes": Rule(
        "a list of [height, width], all from 32, or a COCO annotation file, or null",
        lambda v: (
            v is None
            or (isinstance(v, list) and v != [] and all(is_list(s, 32) and len(s) == 2 for s in v))
            or (isinstance(v, str) and v != "")
        ),
    ),
    "format": Rule("table, json or csv", lambda v: isinstance(v, str) and v in ("table", "json", "csv")),
    "size": Rule("a whole number from 1, or two", lambda v: is_whole(v) or (is_list(v, 1) and len(v) == 2)),
    "segmentation": Rule(
        "panoptic, instance or semantic", lambda v: isinstance(v, str) and v in ("panoptic", "instance", "semantic")
    ),
    "weights": Rule("a file, a folder or a hub name, or null", lambda v: v is None or (isinstance(v, str) and v != "")),
    "allow": Rule(
        "a list of packages, for example [my_package]",
        lambda v: isinstance(v, list) and all(isinstance(x, str) and NAME_OF_PACKAGE.fullmatch(x) for x in v),
    ),
    "name": Rule("text", lambda value: isinstance(value, str)),
}
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
