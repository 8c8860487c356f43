"""The answer in words: gate it, take a fixed exit, or not enough images to tell."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from src.metrics.bootstrap import Estimate

UNDECIDED = "not enough images to tell"


class Verdict(NamedTuple):
    """An answer, its reason as a sentence, and how many images would decide an open one."""

    answer: str
    why: str
    images_needed: int | None = None


def verdict_of(figures: Mapping[str, Estimate], exit_: int, num_images: int, worth: float) -> Verdict:
    """Judge by the intervals of the figures of a gate, or of a table if there is no `lead` among them.

    Args:
        figures: see `Judgement`.
        exit_: depth of the best fixed exit.
        worth: least lead in utility that would be worth a gate.
    """
    if "lead" in figures:
        return of_gate(figures, exit_, num_images, worth)
    return of_table(figures, exit_, num_images, worth)


def of_gate(figures: Mapping[str, Estimate], exit_: int, num_images: int, worth: float) -> Verdict:
    """Judge a gate by its lead over the best fixed exit and over chance, and by the headroom if that is known."""
    lead, over_chance, headroom = figures["lead"], figures["lead_over_chance"], figures.get("headroom")
    said = f"its utility is {spell(lead)} beyond that of exit {exit_}"
    if lead.high < worth:
        return Verdict(f"take exit {exit_}", f"{said}, which is less than the {worth:g} that would be worth a gate")
    if lead.low > 0 and over_chance.low > 0:
        return Verdict("gate it", f"{said}, the best fixed exit, and {spell(over_chance)} beyond chance")
    if headroom is not None and headroom.high < worth:
        return Verdict(f"take exit {exit_}", no_gate(headroom, exit_, worth))
    ways = [max(images_above(one, 0, num_images) for one in (lead, over_chance)), images_below(lead, worth, num_images)]
    if headroom is not None:
        ways.append(images_below(headroom, worth, num_images))
    return undecided(f"{said}", min(ways))


def of_table(figures: Mapping[str, Estimate], exit_: int, num_images: int, worth: float) -> Verdict:
    """Judge what any gate could earn: by the headroom if there is a second measurement, else by the oracle's lead."""
    top = figures.get("headroom", figures["oracle_lead"])
    if top.high < worth:
        return Verdict(f"take exit {exit_}", no_gate(top, exit_, worth))
    said = f"the headroom beyond exit {exit_} is {spell(top)}"
    if "headroom" not in figures:
        said = f"the oracle's lead over exit {exit_} is {spell(top)}, an upper bound: without a second measurement "
        said += "(--again) it is unknown how much of it is noise"
    if top.low >= worth:
        return Verdict(f"a gate can earn up to {top.value:.4f}", said)
    return undecided(said, min(images_above(top, worth, num_images), images_below(top, worth, num_images)))


def no_gate(top: Estimate, exit_: int, worth: float) -> str:
    return (
        f"no gate can earn more than {spell(top)} beyond exit {exit_}, less than the {worth:g} that would be worth one"
    )


def undecided(said: str, needed: float) -> Verdict:
    """Return the verdict that more images are needed, with a rough number, since intervals shrink with its root."""
    if not math.isfinite(needed):
        return Verdict(UNDECIDED, said)
    count = math.ceil(float(f"{needed:.2g}"))
    return Verdict(UNDECIDED, f"{said}; about {count} images would do", count)


def images_above(one: Estimate, bound: float, num_images: int) -> float:
    """Return how many images bring the lower end of an interval to a bound; infinite if the value is not above it."""
    return num_images * ((one.value - one.low) / (one.value - bound)) ** 2 if one.value > bound else math.inf


def images_below(one: Estimate, bound: float, num_images: int) -> float:
    """Return how many images bring the upper end of an interval to a bound; infinite if the value is not below it."""
    return num_images * ((one.high - one.value) / (bound - one.value)) ** 2 if one.value < bound else math.inf


def spell(one: Estimate, form: str = ".4f") -> str:
    """Format a figure with its interval; a zero has no sign."""
    return f"{one.value:z{form}} [{one.low:z{form}}, {one.high:z{form}}]"
