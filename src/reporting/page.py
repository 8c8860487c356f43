"""A report as one HTML file that needs no other file and no network."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from src.reporting import curve, markup, seeds
from src.reporting.breakdown import breakdowns
from src.reporting.cards import anchors, cards
from src.reporting.histograms import histograms
from src.reporting.markup import details
from src.reporting.points import KINDS, Panel, Point
from src.reporting.published import published_on
from src.reporting.runs import LATENCY, Run, Skipped

TEMPLATE = Path(__file__).with_name("page.html")
COUNTED = {
    "gflops": "GFLOPs are means over the images of the table, each at its own size.",
    "image_gflops": "GFLOPs are means over the images, each at its own size.",
    "total_gflops": "GFLOPs of exits are counted at one size, those of a gate's choice at each image's own.",
}
OPEN = 40  # rows of a table that is shown at once
SKIPPED_OPEN = 6  # skipped files that are shown at once
TIMED = (
    "Milliseconds are of one image, from the preprocessed image to the last prediction. They compare within a run, "
    "where all took turns, and between runs only if their machines were as busy; shares of the deepest exit's in the "
    "same run compare between runs of a model."
)
DIGITS = {"quality": ".4f"}  # of a score; others are per cents and have two


def page(runs: Sequence[Run], panels: Sequence[Panel], skipped: Sequence[Skipped], pictures: str) -> str:
    """Return the whole report; `pictures` is HTML."""
    at = anchors(runs)
    num_runs = "1 run, read from its folder" if len(runs) == 1 else f"{len(runs)} runs, read from their folders"
    sections = [section(panel, at, tables) for panel, tables in zip(panels, breakdowns(panels), strict=True)]
    return Template(TEMPLATE.read_text()).substitute(
        title="Quality against cost",
        about=f"{num_runs}. ± is one standard deviation over seeds, of runs that differ in nothing else. "
        "GFLOPs are 1e9 multiply-adds of an image.",
        skipped=warning(skipped),
        panels="\n".join(sections),
        pictures=pictures,
        runs="\n".join(cards(runs, at)),
    )


def warning(skipped: Sequence[Skipped]) -> str:
    """Return a list of what the report lacks; empty if that is nothing."""
    if not skipped:
        return ""
    lines = "".join(f"<li><code>{escape(str(one.place))}</code>: {escape(one.why)}</li>" for one in skipped)
    summary = f"<strong>Left out: {len(skipped)}</strong>"
    return f'<div class="warn">{details(summary, f"<ul>{lines}</ul>", len(skipped) <= SKIPPED_OPEN)}</div>'


def section(panel: Panel, at: Mapping[int, str], breakdown: str) -> str:
    """Return curves, numbers, breakdowns and chosen exits of one data set."""
    timed = panel.timed()
    header = ["exit or beta", "seeds", panel.quality, "layers", "GFLOPs"]
    header += [name for device in timed for name in (f"ms, {device}", "of deepest exit")]
    table = markup.table(header, "".join(lines(panel, at, timed)) + published(panel))
    said = f"A shaded row is on the Pareto front of exits and gates: nothing cheaper is as good. {COUNTED[panel.cost]}"
    said += f" {TIMED}" if timed else ""
    numbers = details("Numbers of the curve", f'<p class="soft">{said}</p>{table}', len(panel.points) <= OPEN)
    curves = f"<div>{curve.svg(panel)}</div>"
    for device, by_latency in timed.items():
        curves += f"<div><h3>{escape(f'latency on {device}')}</h3>{curve.svg(by_latency)}</div>"
    return (
        f'<section><h2>{escape(panel.title)}</h2>\n<div class="curves">{curves}</div>\n'
        f"{legend(panel)}{numbers}{breakdown}{histograms(panel)}</section>"
    )


def legend(panel: Panel) -> str:
    """Return glyphs, colours and names of all lines."""
    color = curve.colors(panel)
    items: dict[str, tuple[str, str]] = {}
    for label, kind in panel.series:
        tint = curve.GREY if kind == "random" else color[label]
        items[curve.named(label, kind)] = (curve.GLYPHS[kind], tint)
    if any(one.gflops for one in published_on(panel.data_set, panel.quality)):
        items["published, not ours; letters as in the table"] = (curve.GLYPHS["published"], curve.GREY)
    if len(panel.front()) > 1:
        items["Pareto front of fixed exits and gates"] = ("▬", curve.GREY)
    shown = "".join(
        f'<li><span style="color:{tint}">{glyph}</span> {escape(name)}</li>' for name, (glyph, tint) in items.items()
    )
    listed = f'<ul class="legend">{shown}</ul>'
    return listed if len(items) <= OPEN else details(f"{len(items)} lines", listed)


def lines(panel: Panel, at: Mapping[int, str], devices: Collection[str]) -> Iterator[str]:
    """Yield a heading and the rows of each line of the curve."""
    front, color = {id(point) for point in panel.front()}, curve.colors(panel)
    for (label, kind), points in panel.series.items():
        said = f'<span style="color:{color[label]}">{curve.GLYPHS[kind]}</span> {escape(f"{KINDS[kind]}: {label}")}'
        rows = [markup.row(cells(point, at, devices), "front" if id(point) in front else "") for point in points]
        yield f'<tbody><tr><th colspan="9">{said}</th></tr>{"".join(rows)}</tbody>'


def cells(point: Point, at: Mapping[int, str], devices: Collection[str]) -> list[str]:
    """Return policy, seeds, quality, layers, GFLOPs and latencies of a point."""
    if point.kind == "exit":
        name, layers = f"exit {point.depth}", point.depth
    else:
        name = point.kind if point.beta is None else f"beta {point.beta:g}"
        layers = seeds.spell(point.values("depth"), ".2f")
    link = f'<a href="#{at[id(point.runs[0])]}">{len(point.runs)}</a>'
    quality = seeds.spell(point.values(point.quality), DIGITS.get(point.quality, ".2f"))
    found = [name, link, quality, layers, seeds.spell([point.mean(point.cost)], ".4g")]
    for device in devices:
        timed = point.timed(device)
        found += [seeds.spell(timed.values(LATENCY), ".2f"), seeds.spell(timed.paces(), ".2f")]
    return found


def published(panel: Panel) -> str:
    """Return rows of published figures with their sources; empty if there are none for this data set."""
    known = published_on(panel.data_set, panel.quality)
    if not known:
        return ""
    rows = "".join(
        f'<tr><td class="text" colspan="2">{one.letter}: {escape(one.model)} '
        f'<span class="soft">({escape(one.source)})</span></td>'
        f"<td>{one.score}</td><td></td><td>{one.gflops or 'not found'}</td></tr>"
        for one in known
    )
    measure = f"; {escape(known[0].measure)}" if known[0].measure else ""
    return f'<tbody><tr><th colspan="9">★ published, measured by others, not by us{measure}</th></tr>{rows}</tbody>'
