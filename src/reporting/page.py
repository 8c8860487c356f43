"""A report as one HTML file: nothing in it comes from elsewhere."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from src.reporting import curve
from src.reporting.cards import cards, places
from src.reporting.histograms import histograms
from src.reporting.pictures import MOST, embed, strips
from src.reporting.points import KINDS, Panel, Point
from src.reporting.published import published_on
from src.reporting.runs import Run, Skipped

TEMPLATE = Path(__file__).with_name("page.html")
OPEN = 40  # rows of a table that is shown at once
SAID = 6  # things left out that are shown at once
DIGITS = {"quality": ".4f"}  # of a score; others have two, as per cents


def page(runs: Sequence[Run], panels: Sequence[Panel], skipped: Sequence[Skipped], pictures: str) -> str:
    """The whole report, with pictures as `pictures_of` makes them."""
    at = places(runs)
    return Template(TEMPLATE.read_text()).substitute(
        title="Quality against cost",
        about=f"{count(len(runs), 'run')}, read from {'their' if len(runs) > 1 else 'its'} folders. ± is one standard "
        "deviation over seeds, of runs that differ in nothing else. GFLOPs are 1e9 multiply-adds of an image.",
        skipped=warning(skipped),
        panels="\n".join(section(panel, at) for panel in panels),
        pictures=pictures,
        runs="\n".join(cards(runs, at)),
    )


def count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def warning(skipped: Sequence[Skipped]) -> str:
    """What the report lacks."""
    if not skipped:
        return ""
    lines = "".join(f"<li><code>{escape(str(one.place))}</code>: {escape(one.why)}</li>" for one in skipped)
    is_open = " open" * (len(skipped) <= SAID)
    said = f"<strong>Left out: {len(skipped)}</strong>"
    return f'<div class="warn"><details{is_open}><summary>{said}</summary><ul>{lines}</ul></details></div>'


def section(panel: Panel, at: dict[int, str]) -> str:
    """Curve, numbers and exits of one data set."""
    rows = [line for (label, kind), points in panel.series.items() for line in lines(panel, label, kind, points, at)]
    rows += published(panel)
    names = ("exit or beta", "seeds", panel.quality, "layers", "GFLOPs")
    head = "".join(f"<th>{name}</th>" for name in names)
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead>{"".join(rows)}</table></div>'
    is_open = " open" * (len(panel.points) <= OPEN)
    said = (
        "A shaded row is on the Pareto front of fixed exits and gates: nothing cheaper is as good. "
        "Costs of exits are counted at one size, those of a gate's choice at each image's own."
    )
    return (
        f"<section><h2>{escape(panel.title)}</h2>\n{curve.svg(panel)}\n{legend(panel)}"
        f'<details{is_open}><summary>Numbers of the curve</summary><p class="soft">{said}</p>{table}</details>'
        f"{histograms(panel)}</section>"
    )


def legend(panel: Panel) -> str:
    """What the lines are."""
    color = curve.colors(panel)
    ink = {(label, kind): curve.FRONT if kind == "random" else color[label] for label, kind in panel.series}
    lines = [(curve.GLYPHS[kind], ink[label, kind], curve.named(label, kind)) for label, kind in panel.series]
    items = list({name: (glyph, tint, name) for glyph, tint, name in lines}.values())
    if any(one.gflops for one in published_on(panel.data_set, panel.quality)):
        items.append((curve.GLYPHS["published"], curve.PUBLISHED, "published, not ours; letters as in the table"))
    if len(panel.front()) > 1:
        items.append(("▬", curve.FRONT, "Pareto front of fixed exits and gates"))
    shown = "".join(f'<li><span style="color:{tint}">{glyph}</span> {escape(name)}</li>' for glyph, tint, name in items)
    listed = f'<ul class="legend">{shown}</ul>'
    return listed if len(items) <= OPEN else f"<details><summary>{len(items)} lines</summary>{listed}</details>"


def lines(panel: Panel, label: str, kind: str, points: Sequence[Point], at: dict[int, str]) -> list[str]:
    """A heading and the rows of one line of the curve."""
    front, ink = {id(point) for point in panel.front()}, curve.colors(panel)[label]
    name = f"{KINDS[kind]}: {label}"
    said = f'<span style="color:{ink}">{curve.GLYPHS[kind]}</span> {escape(name)}'
    rows = []
    for point in points:
        who = f"exit {point.who[4:]}" if kind == "exit" else "" if point.beta is None else f"beta {point.beta:g}"
        depths = [who[5:]] if kind == "exit" else [spell(point, "depth", ".2f")]
        seeds = f'<a href="#{at[id(point.runs[0])]}">{len(point.runs)}</a>'
        cells = [who or kind, seeds, spell(point, panel.quality, digits(panel.quality)), *depths]
        cells.append(spell(point, point.cost, ".4g", spread=False))
        mark = ' class="front"' * (id(point) in front)
        rows.append(f"<tr{mark}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return [f'<tbody><tr><th colspan="5">{said}</th></tr>{"".join(rows)}</tbody>']


def published(panel: Panel) -> list[str]:
    """Rows of what others measured, with where it was published."""
    known = published_on(panel.data_set, panel.quality)
    if not known:
        return []
    rows = "".join(
        f'<tr><td class="text" colspan="2">{one.letter}: {escape(one.model)} '
        f'<span class="soft">({escape(one.source)})</span></td>'
        f"<td>{one.score}</td><td></td><td>{one.gflops or 'not found'}</td></tr>"
        for one in known
    )
    return [f'<tbody><tr><th colspan="5">★ published, measured by others, not by us</th></tr>{rows}</tbody>']


def digits(quality: str) -> str:
    return DIGITS.get(quality, ".2f")


def spell(point: Point, name: str, form: str, spread: bool = True) -> str:
    """A mean over seeds, and its standard deviation where there are several."""
    mean, deviation = point.mean(name), point.deviation(name)
    if math.isnan(mean):
        return "–"
    return f"{mean:{form}} ± {deviation:{form}}" if deviation is not None and spread else f"{mean:{form}}"


def pictures_of(runs: Sequence[Run]) -> tuple[str, list[Skipped]]:
    """The first pictures of all runs, as many as a page bears, and those that could not be read."""
    left, unread, sections = MOST, [], []
    found = strips(runs)
    for strip in found:
        shown = []
        for picture in strip.pictures[:left]:
            left -= 1
            data = embed(picture.file)
            if data is None:
                unread.append(Skipped(picture.file, "no picture that can be read"))
                continue
            caption = escape(picture.caption)
            shown.append(
                f'<figure><img src="{data}" alt="{caption}" loading="lazy">'
                f'<figcaption class="soft">{caption}</figcaption></figure>'
            )
        if shown:
            sections.append(f'<h3>{escape(strip.title)}</h3><div class="strip">{"".join(shown)}</div>')
    if more := sum(len(strip.pictures) for strip in found) - MOST + left:
        sections.append(f'<p class="soft">{count(more, "picture")} more in the folders of the runs.</p>')
    return (f"<h2>Pictures</h2>{''.join(sections)}" if sections else ""), unread
