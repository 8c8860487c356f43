"""Which values settings may have, by their names: one name means one thing, wherever it stands."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

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

RULES = {
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
