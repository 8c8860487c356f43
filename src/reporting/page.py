"""A report as one HTML file: nothing in it comes from elsewhere."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from src.reporting import curve, seeds
from src.reporting.breakdown import breakdowns
from src.reporting.cards import cards, places
from src.reporting.gallery import MOST, embed, strips
from src.reporting.histograms import histograms
from src.reporting.points import KINDS, Panel, Point
from src.reporting.published import published_on
from src.reporting.runs import LATENCY, Run, Skipped

TEMPLATE = Path(__file__).with_name("page.html")
FRONT = ' class="front"'
COUNTED = {
    "gflops": "GFLOPs are means over the images of the table, each at its own size.",
    "image_gflops": "GFLOPs are means over the images, each at its own size.",
    "total_gflops": "GFLOPs of exits are counted at one size, those of a gate's choice at each image's own.",
}
OPEN = 40  # rows of a table that is shown at once
SAID = 6  # things left out that are shown at once
TIMED = (
    "Milliseconds are of one image, from the preprocessed image to the last prediction. They compare within a run, "
    "where all took turns, and between runs only if their machines were as busy; shares of the deepest exit's in the "
    "same run compare between runs of a model."
)
DIGITS = {"quality": ".4f"}  # of a score; others have two, as per cents


def page(runs: Sequence[Run], panels: Sequence[Panel], skipped: Sequence[Skipped], pictures: str) -> str:
    """The whole report, with pictures as `pictures_of` makes them."""
    at = places(runs)
    return Template(TEMPLATE.read_text()).substitute(
        title="Quality against cost",
        about=f"{count(len(runs), 'run')}, read from {'their' if len(runs) > 1 else 'its'} folders. ± is one standard "
        "deviation over seeds, of runs that differ in nothing else. GFLOPs are 1e9 multiply-adds of an image.",
        skipped=warning(skipped),
        panels="\n".join(map(section, panels, [at] * len(panels), breakdowns(panels))),
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


def section(panel: Panel, at: dict[int, str], breakdown: str) -> str:
    """Curves, numbers and exits of one data set."""
    timed = panel.timed()
    rows = [*lines(panel, at, timed), *published(panel)]
    names = ["exit or beta", "seeds", panel.quality, "layers", "GFLOPs"]
    names += [name for device in timed for name in (f"ms, {device}", "of deepest exit")]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead>{"".join(rows)}</table></div>'
    is_open = " open" * (len(panel.points) <= OPEN)
    said = f"A shaded row is on the Pareto front of exits and gates: nothing cheaper is as good. {COUNTED[panel.cost]}"
    said += f" {TIMED}" if timed else ""
    return (
        f"<section><h2>{escape(panel.title)}</h2>\n{curves(panel, timed)}\n{legend(panel)}"
        f'<details{is_open}><summary>Numbers of the curve</summary><p class="soft">{said}</p>{table}</details>'
        f"{breakdown}{histograms(panel)}</section>"
    )


def curves(panel: Panel, timed: Mapping[str, Panel]) -> str:
    """Quality against multiply-adds and, where that was measured, against latency, for each class of machine."""
    shown = {"": panel, **{f"latency on {device}": one for device, one in timed.items()}}
    drawn = [f"<div>{f'<h3>{escape(name)}</h3>' if name else ''}{curve.svg(one)}</div>" for name, one in shown.items()]
    return f'<div class="curves">{"".join(drawn)}</div>'


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


def lines(panel: Panel, at: dict[int, str], devices: Iterable[str]) -> Iterator[str]:
    """A heading and the rows of each line of the curve."""
    front, color = {id(point) for point in panel.front()}, curve.colors(panel)
    for (label, kind), points in panel.series.items():
        said = f'<span style="color:{color[label]}">{curve.GLYPHS[kind]}</span> {escape(f"{KINDS[kind]}: {label}")}'
        rows = []
        for point in points:
            cells = "".join(f"<td>{cell}</td>" for cell in cells_of(point, at, devices))
            rows.append(f"<tr{FRONT * (id(point) in front)}>{cells}</tr>")
        yield f'<tbody><tr><th colspan="9">{said}</th></tr>{"".join(rows)}</tbody>'


def cells_of(point: Point, at: dict[int, str], devices: Iterable[str]) -> list[str]:
    """What is said of a point."""
    depth = point.who.removeprefix("exit")
    who = f"exit {depth}" if point.kind == "exit" else point.kind if point.beta is None else f"beta {point.beta:g}"
    layers = depth if point.kind == "exit" else seeds.spell(point.values("depth"), ".2f")
    behind = f'<a href="#{at[id(point.runs[0])]}">{len(point.runs)}</a>'
    quality = seeds.spell(point.values(point.quality), DIGITS.get(point.quality, ".2f"))
    cells = [who, behind, quality, layers, seeds.spell([point.mean(point.cost)], ".4g")]
    for device in devices:
        there = point.timed(device)
        cells += [seeds.spell(there.values(LATENCY), ".2f"), seeds.spell(there.paces(), ".2f")]
    return cells


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
    others = "".join(f"; {escape(measure)}" for measure in {one.measure: None for one in known} if measure)
    return [f'<tbody><tr><th colspan="9">★ published, measured by others, not by us{others}</th></tr>{rows}</tbody>']


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
