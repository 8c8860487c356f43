"""Whether data have the classes that a model has learnt, told by their names, which checkpoints of ours keep.

A class is its place in the list: other names at the same places, or the same in another order, are other classes.
"""

import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.system.terminal import say
from src.weights.files import load

SHOWN = 3  # classes that are named
SAME_DATA = "choose the data that it was trained on"


def check_classes(cfg: DictConfig, names: Sequence[str]) -> None:
    """Refuse data of other classes than the model has learnt; say it where a training starts from weights.

    Commands that score have the setting `check_classes`; false: it is said there, too. Raises ValueError.
    """
    resumed = None if only_scores(cfg) else cfg.ckpt_path
    source = resumed or (None if cfg.model.drop_class_head else cfg.model.weights)
    learnt = [category["name"] for category in learnt_categories(source) or []]
    other = difference(learnt, names)
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
    """Whether a command takes a model as it is, and needs data for it."""
    return "check_classes" in cfg


def what_to_do(cfg: DictConfig) -> str:
    """What helps a command where weights know another number of classes than the data have."""
    if only_scores(cfg):
        return f"{SAME_DATA}; data= and data.root= say which"
    if "categories" in cfg:
        return "expected categories= with as many, or none where a checkpoint of ours names them"
    return (
        "choose data with as many, or model.drop_class_head=true to learn the classes anew and keep all other weights"
    )


def learnt_categories(weights: str | None) -> list[dict[str, Any]] | None:
    """The classes that a checkpoint of ours has learnt, by index; None of weights that do not say."""
    if weights is None or not zipfile.is_zipfile(weights):  # which a checkpoint of ours is
        return None
    with suppress(ValueError):  # which says why when the weights are read
        content = load(Path(weights), "weights", mmap=True)
        kept = content.get("hyper_parameters") if isinstance(content, dict) else None
        found = kept.get("categories") if isinstance(kept, dict) else None
        ours = isinstance(found, list) and all(
            isinstance(one, dict) and isinstance(one.get("name"), str) for one in found
        )
        return found if ours else None  # another's setting of that name
    return None


def difference(learnt: Sequence[str], names: Sequence[str]) -> str | None:
    """How names differ from those that were learnt, letter case and spaces aside; None where they do not.

    None also where they are of another number, which is refused when weights are loaded.
    """
    if len(learnt) != len(names):
        return None
    before, now = (["".join(name.split()).casefold() for name in one] for one in (learnt, names))
    places = [place for place, (one, other) in enumerate(zip(before, now, strict=True)) if one != other]
    if not places:
        return None
    shown = [f"class {place} is {names[place]!r} in the data, learnt as {learnt[place]!r}" for place in places[:SHOWN]]
    order = "the same names in another order: " * (sorted(before) == sorted(now))
    more = f", and {len(places) - SHOWN} more" * (len(places) > SHOWN)
    return f"{order}{', '.join(shown)}{more}"
