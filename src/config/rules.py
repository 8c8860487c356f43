"""Which values settings may have, by name: a name means the same wherever it stands."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What a setting may be, in words and as a test."""

    expected: str
    holds: Callable[[Any], bool]

    def or_null(self) -> "Rule":
        return Rule(f"{self.expected}, or null", lambda value: value is None or self.holds(value))


def whole(least: int) -> Rule:
    return Rule(f"a whole number from {least}", lambda value: type(value) is int and value >= least)


def number(bounds: str, within: Callable[[float], bool]) -> Rule:
    return Rule(
        f"a number{bounds}", lambda value: type(value) in (int, float) and math.isfinite(value) and within(value)
    )


def text(expected: str, pattern: str = "(?s).+") -> Rule:
    return Rule(expected, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def one_of(*texts: str) -> Rule:
    return Rule(f"{', '.join(texts[:-1])} or {texts[-1]}", lambda value: isinstance(value, str) and value in texts)


def list_of(one: Rule, expected: str, least: int = 1, most: float = math.inf) -> Rule:
    """A list of `least` to `most` values that each pass a rule."""
    return Rule(
        expected, lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(one.holds, value))
    )


def distinct(rule: Rule) -> Rule:
    return Rule(rule.expected, lambda value: rule.holds(value) and len(set(value)) == len(value))


def either(expected: str, *rules: Rule) -> Rule:
    return Rule(expected, lambda value: any(rule.holds(value) for rule in rules))


COUNT, FROM_ZERO = whole(1), whole(0)
SHARE = number(" from 0 to 1", lambda value: 0 <= value <= 1)
POSITIVE = number(" above 0", lambda value: value > 0)
NOT_NEGATIVE = number(", 0 or more", lambda value: value >= 0)
FLAG = Rule("true or false", lambda value: type(value) is bool)
TEXT = text("text")
IMAGE_SIZE = list_of(whole(32), "[height, width], both from 32", 2, 2)
OUTPUTS = ("overlays", "panoptic", "instances", "semantic", "boxes")

RULES = {
    **dict.fromkeys(("dim", "dim_feedforward", "num_queries", "num_heads", "num_layers", "num_points"), COUNT),
    **dict.fromkeys(("batch_size", "eval_batch_size", "max_steps", "num_scenes", "patience", "num_instances"), COUNT),
    **dict.fromkeys(("images", "rounds", "shard_size", "max_pixels", "coarse_layers", "num_convs"), COUNT),
    **dict.fromkeys(("num_levels", "num_detections"), COUNT),
    **dict.fromkeys(("per_stage", "blocks"), COUNT.or_null()),
    **dict.fromkeys(("num_classes", "at_once", "batch_size_per_device", "validate_every", "exit"), COUNT.or_null()),
    **dict.fromkeys(("num_workers", "count", "log_every_n_steps", "hidden", "samples"), FROM_ZERO),
    **dict.fromkeys(("object_threshold", "overlap_threshold", "importance_share", "void", "crowd", "flip"), SHARE),
    "label_noise": SHARE,
    "dropout": number(" from 0 to below 1", lambda value: 0 <= value < 1),
    **dict.fromkeys(("class_weight", "mask_weight", "dice_weight", "no_object_weight", "weight_decay"), NOT_NEGATIVE),
    **dict.fromkeys(("backbone_lr_multiplier", "encoder_lr_multiplier"), NOT_NEGATIVE),
    **dict.fromkeys(("distil", "box_weight", "giou_weight", "box_noise"), NOT_NEGATIVE),
    **dict.fromkeys(("temperature", "lr"), POSITIVE),
    **dict.fromkeys(("budget_gflops", "budget_ms", "gradient_clip_val"), POSITIVE.or_null()),
    **dict.fromkeys(
        (
            *("decode", "mirror", "mirrored", "judge", "refine", "share_heads", "look_forward_twice", "decay_all"),
            "budget_per_image",
        ),
        FLAG,
    ),
    "beta": NOT_NEGATIVE.or_null(),
    "betas": distinct(list_of(NOT_NEGATIVE, "a list of numbers, 0 or more, none twice, for example [0.001, 0.01]")),
    "holdout": number(" above 0 and below 1", lambda value: 0 < value < 1),
    "seed": Rule("a whole number from 0 to 4294967295", lambda value: FROM_ZERO.holds(value) and value < 2**32),
    "alpha": Rule("1, k or k*k/10", lambda value: type(value) in (int, str) and str(value) in ("1", "k", "k*k/10")),
    "exits_per_step": Rule("a whole number from 1, or all", lambda value: COUNT.holds(value) or value == "all"),
    "deterministic": Rule("true, false, warn or null", lambda value: value in (True, False, "warn", None)),
    "activation_checkpointing": either(
        "true, false, or a list of backbone, encoder and decoder, none twice",
        FLAG,
        distinct(list_of(one_of("backbone", "encoder", "decoder"), "")),
    ),
    "sampling": one_of("auto", "grid", "rows", "triton", "gather"),
    "segmentation": one_of("panoptic", "instance", "semantic", "boxes"),
    "quality": one_of("score", "loss"),
    "target": one_of("exit", "soft", "quality", "gain"),
    "centre": one_of("mean", "median"),
    "split": one_of("train", "val", "both"),
    "format": one_of("table", "json", "csv"),
    "form": one_of("split", "whole").or_null(),
    "batch": COUNT.or_null(),
    "on_failure": one_of("continue", "stop"),
    "max_time": text("days:hours:minutes:seconds, for example 00:12:00:00", r"\d+(:\d\d){3}").or_null(),
    "schedule": list_of(
        FROM_ZERO,
        "a list of whole numbers from 0, the layers with 1, 2, 3 and more active levels, for example [0, 0, 6] or "
        "[3, 3, 3]",
        least=0,
    ),
    "exits": either("a list of depths from 1, or null for the last", list_of(COUNT, "").or_null()),
    "ignore": list_of(FROM_ZERO, "a list of whole numbers from 0, for example [255]", least=0),
    "scales": list_of(POSITIVE, "a list of numbers above 0, for example [0.5, 1.0, 1.5]"),
    "inputs": distinct(list_of(TEXT, "a list of gate inputs, none twice, for example [mean32, std32]")),
    "photos": list_of(text("", "(?s).*"), "a list of files, folders or patterns", least=0),
    "outputs": list_of(one_of(*OUTPUTS), f"some of {', '.join(OUTPUTS)}", least=0).or_null(),
    "image_suffixes": list_of(TEXT, "a list of how names end, for example [.jpg, .png]"),
    "mask_suffix": text("how names end, for example .png"),
    "strides": distinct(list_of(whole(4), "a list of strides of levels, coarsest first, for example [64, 32, 16, 8]")),
    "image_size": IMAGE_SIZE,
    "size": either("a whole number from 1, or two", COUNT, list_of(COUNT, "", 2, 2)),
    "sizes": either(
        "a list of [height, width], all from 32, or a COCO annotation file, or null",
        list_of(IMAGE_SIZE, ""),
        TEXT.or_null(),
    ),
    "latency": text("a latency.json, which src.measure writes").or_null(),
    "export": text("the folder of an export").or_null(),
    "schedules": list_of(
        list_of(FROM_ZERO, ""), "a list of schedules, for example [[0, 0, 6], [3, 3, 3]], or null"
    ).or_null(),
    "table": text("the folder of an exit table").or_null(),
    "weights": text("a file, a folder or a hub name").or_null(),
    "categories": text("the name of a benchmark, a file").or_null(),
    "allow": list_of(
        text("", r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"), "a list of packages, for example [my_package]", least=0
    ),
    "name": text("text", "(?s).*"),
}
