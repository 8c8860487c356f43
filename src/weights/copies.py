"""Finds the copies of a model in a file: in nested dictionaries, under a prefix, beside optimisers and averages."""

import re
from collections.abc import Iterator
from shlex import quote
from typing import Any, NamedTuple

from src.system.terminal import say_once
from src.weights.layouts import layouts_by_prefix
from src.weights.pickles import is_tensor

WRAPPERS = re.compile(r"(^|(?<=\.))_(orig_mod|(fsdp|checkpoint)_wrapped_module|forward_module)\.")  # torch's
SHOWN = 10  # names that a message lists
AVERAGES = re.compile(r"ema|swa|avg|averag|teacher|momentum|shadow", re.IGNORECASE)
OPTIMISER = re.compile(r"(^|\.)optim(?!i[sz]ed)", re.IGNORECASE)  # not a model that is called optimized


class Copy(NamedTuple):
    """A copy of the model in a file."""

    place: str  # keys of dictionaries, then the prefix of its names
    layout: str
    averaged: bool
    values: dict[Any, Any]  # by name without the prefix

    @property
    def called(self) -> str:
        """Its name in messages and for `take`."""
        return self.place.rstrip(".") or "the names without a prefix"


def dictionaries(content: Any) -> Iterator[tuple[str, dict]]:
    """Each dictionary in the content, outer ones first, and the keys that lead there, each with a dot after it."""
    queue, seen = [("", content)], set()
    for place, node in queue:
        if id(node) in seen:  # content can contain itself
            continue
        seen.add(id(node))
        if isinstance(node, dict):
            yield place, without_wrappers(node)
        items = node.items() if isinstance(node, dict) else enumerate(node) if type(node) in (list, tuple) else ()
        queue += [(f"{place}{key}.", value) for key, value in items]


def without_wrappers(entries: dict) -> dict:
    """Entries whose names have lost the prefixes of torch's wrappers; unchanged if two names would become one."""
    plain = {WRAPPERS.sub("", key) if isinstance(key, str) else key: value for key, value in entries.items()}
    return plain if len(plain) == len(entries) else entries


def copies_in(content: Any) -> list[Copy]:
    """Every copy of a model in a known layout."""
    found = []
    for place, entries in dictionaries(content):
        names = [key for key, value in entries.items() if isinstance(key, str) and is_tensor(value)]
        layouts = layouts_by_prefix(names)
        for prefix, layout in layouts.items():
            others = tuple(other for other in layouts if other != prefix and other.startswith(prefix))
            mine = [key for key in entries if str(key).startswith(prefix) and not str(key).startswith(others)]
            counted = f"{prefix.removesuffix('module.')}n_averaged" in entries  # torch's AveragedModel
            values = {key[len(prefix) :] if isinstance(key, str) else key: entries[key] for key in mine}
            averaged = counted or AVERAGES.search(place + prefix) is not None
            found.append(Copy(place + prefix, layout, averaged, values))
    return [copy for copy in found if not OPTIMISER.search(copy.place)]


def choose(copies: list[Copy], take: str | None, source: str) -> Copy:
    """The copy with a name; by default one that is not averaged, then the largest, then that of the shortest name.

    Raises ValueError if no copy has the name.
    """
    if take is None:
        return min(copies, key=lambda copy: (copy.averaged, -len(copy.values), len(copy.place)))
    for copy in copies:
        if copy.called == take:
            return copy
    there = ", ".join(copy.called for copy in copies)
    raise ValueError(f"weights={source}: holds no model called {take}, expected one of: {there}")


def left(content: Any, copies: list[Copy], taken: Copy) -> list[str]:
    """Keys outside the copies that hold tensors; among names beside the taken ones, their first part."""
    places = tuple(copy.place for copy in copies)
    found: dict[str, None] = {}
    for place, entries in dictionaries(content):
        for key, value in entries.items():
            name = f"{place}{key}"
            if is_tensor(value) and not name.startswith(places):
                start = place if place and taken.place.startswith(place) else ""
                found[start + name[len(start) :].split(".")[0]] = None
    return list(found)


def report(source: str, content: Any, copies: list[Copy], taken: Copy) -> None:
    """Print once which copy was taken and what was left out, if anything was.

    For our own checkpoints only another copy is reported; their other contents are known.
    """
    others = [copy.called for copy in copies if copy is not taken]
    if not others and taken.layout == "ours" and "pytorch-lightning_version" in content:
        return
    names = [f"{name} (another copy of the model)" for name in others] + left(content, copies, taken)
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        say_once(f"weights={source}: {taken.called} is taken; left out: {', '.join(names[:SHOWN])}{more}")
    if others:
        convert = f"python -m scripts.convert_checkpoint {quote(source)} TARGET.safetensors --take {quote(others[0])}"
        say_once(f"to take {others[0]}, make a file of it: {convert}")
