"""Compare the classes of data with those that a model has learnt, by the names that our checkpoints keep.

A class is its place in the list: other names at the same places, or the same in another order, are other classes.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.system.terminal import say
from src.weights.files import load

SHOWN = 3  # classes that a message names
SAME_DATA = "choose the data that it was trained on"


def check_classes(cfg: DictConfig, names: Sequence[str]) -> None:
    """Raise ValueError for data with other classes than the model has learnt.

    Only a warning where a training starts from weights, and where a command that scores has `check_classes=false`.
    """
    resumed = None if only_scores(cfg) else cfg.ckpt_path
    source = resumed or (None if cfg.model.drop_class_head else cfg.model.weights)
    other = difference([category["name"] for category in learnt_categories(source) or []], names)
    if other is None:
        return
    said = f"{source} has learnt other classes than the data have: {other}"
    if resumed:
        raise ValueError(f"ckpt_path={said}; {SAME_DATA}, or start a new run from its weights: model.weights={source}")
    if not only_scores(cfg):
        say(f"warning: model.weights={said}; model.drop_class_head=true would learn the classes anew")
    elif cfg.check_classes:
        raise ValueError(f"{said}; {SAME_DATA}, or take classes by their places all the same: check_classes=false")
    else:
        say(f"warning: {said}")


def only_scores(cfg: DictConfig) -> bool:
    """Whether a command uses a model as it is, on data with annotations."""
    return "check_classes" in cfg


def what_to_do(cfg: DictConfig) -> str:
    """Return what helps if weights have another number of classes than the data."""
    if only_scores(cfg):
        return f"{SAME_DATA}; data= and data.root= say which"
    if "categories" in cfg:
        return "expected categories= with as many, or none where a checkpoint of ours names them"
    return (
        "choose data with as many, or model.drop_class_head=true to learn the classes anew and keep all other weights"
    )


def learnt_categories(weights: str | None) -> list[dict[str, Any]] | None:
    """Return the classes that a checkpoint of ours has learnt, by index; None for weights that do not name them."""
    if weights is None or not zipfile.is_zipfile(weights):  # which a checkpoint of ours is
        return None
    try:
        categories = load(Path(weights), "weights", mmap=True)["hyper_parameters"]["categories"]
        ours = isinstance(categories, list) and all(isinstance(category["name"], str) for category in categories)
    except (ValueError, LookupError, TypeError):  # not ours, or unreadable, which is reported when weights are read
        return None
    return categories if ours else None


def difference(learnt: Sequence[str], names: Sequence[str]) -> str | None:
    """Return in words how names differ from those learnt, ignoring case and spaces; None if they do not.

    None also for another number of names, which is refused when weights are loaded.
    """
    before, now = (["".join(name.split()).casefold() for name in classes] for classes in (learnt, names))
    places = [place for place, (one, other) in enumerate(zip(before, now, strict=False)) if one != other]
    if len(before) != len(now) or not places:
        return None
    shown = [f"class {place} is {names[place]!r} in the data, learnt as {learnt[place]!r}" for place in places[:SHOWN]]
    if len(places) > SHOWN:
        shown.append(f"and {len(places) - SHOWN} more")
    order = "the same names in another order: " if sorted(before) == sorted(now) else ""
    return f"{order}{', '.join(shown)}"
