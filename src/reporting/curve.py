"""The trade-off as a picture: PNG for a paper, SVG that takes its colours from the page around it."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.reporting.points import KINDS, Panel
from src.reporting.published import published_on
from src.reporting.runs import LATENCY
from src.system.atomic import atomic_write

PALETTE = ("#2f7fd0", "#e0742b", "#2a9d6a", "#c94f7c", "#8a63d2", "#b08d1e", "#2aa3b5", "#d0493f", "#7d8b3a", "#9a6b4f")
STYLES = {"exit": "D-", "gate": "o-", "oracle": "^--", "random": "x:", "published": "*"}
GLYPHS = {"exit": "◆", "gate": "●", "oracle": "▲", "random": "×", "published": "★"}
PUBLISHED, FRONT = "#888888", "#888888"
INK, FAINT = "#010203", "#040506"  # stand for the page's colours until it has them
PHONE = (4.4, 3.5)  # inches: a phone shows them at about their size, so that text can be read there
LABELLED = 12  # lines that a legend inside the picture has room for
COSTS = {
    **dict.fromkeys(("gflops", "image_gflops", "total_gflops"), "GFLOPs of an image (1e9 multiply-adds)"),
    LATENCY: "ms of an image, alone in its batch",
}
NAMES = {"pq": "PQ, %", "ap": "AP, %", "miou": "mIoU, %", "quality": "quality of an image, 0 to 1"}


def colors(panel: Panel) -> dict[str, str]:
    """A colour for every series."""
    return {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(panel.labels)}


def named(label: str, kind: str) -> str:
    """What a line is called; chance once for all, in the colour of the gate that it is to be compared with."""
    return f"{KINDS[kind]}, in the gate's colour" if kind == "random" else f"{KINDS[kind]}: {label}"


def draw(axes: Axes, panel: Panel, ink: str = "black", faint: str = "#dddddd") -> None:
    """Quality against what it costs; bars are one standard deviation over seeds."""
    color = colors(panel)
    for (label, kind), line in panel.series.items():
        points = [point for point in line if point.drawn]
        if not points:
            continue
        xs, ys = zip(*(point.at for point in points), strict=True)
        bars = [point.deviation(point.quality) or 0 for point in points]
        name = named(label, kind)
        axes.errorbar(
            xs, ys, bars if any(bars) else None, fmt=STYLES[kind], color=color[label], label=name, markersize=4.5,
            linewidth=1.2, capsize=2, alpha=0.55 if kind == "random" else 1,
        )  # fmt: skip
        if kind == "exit" and len(panel.points) <= 60:
            for x, y, point in zip(xs, ys, points, strict=True):
                depth = point.who.removeprefix("exit")
                axes.annotate(depth, (x, y), (0, -12), textcoords="offset points", ha="center", fontsize=9, color=ink)
    if len(front := panel.front()) > 1:
        xs, ys = zip(*(point.at for point in front), strict=True)
        axes.step(xs, ys, where="post", color=FRONT, linewidth=5, alpha=0.22, label="Pareto front", zorder=0)
    draw_published(axes, panel, ink)
    axes.set_xlabel(COSTS[panel.cost], color=ink)
    axes.set_ylabel(NAMES[panel.quality], color=ink)
    axes.grid(color=faint, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=6)
    axes.tick_params(colors=ink)
    axes.spines[:].set_color(faint)


def draw_published(axes: Axes, panel: Panel, ink: str) -> None:
    """Stars, with the letters that the table and the legend have too, of what others measured."""
    for one in published_on(panel.data_set, panel.quality):
        if one.gflops and panel.cost != LATENCY:
            at = (float(one.gflops), float(one.score))
            said = f"published {one.letter}: {one.model}"
            axes.plot(*at, STYLES["published"], color=PUBLISHED, label=said, markersize=9)
            axes.annotate(one.letter, at, (5, 5), textcoords="offset points", fontsize=9, color=ink)


def write_png(panels: Sequence[Panel], file: Path) -> None:
    """All panels, one below the other."""
    figure = Figure(figsize=(8.5, 5.2 * len(panels)), layout="constrained")
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        draw(axes, panel)
        axes.set_title(panel.title, fontsize=10)
        named_once = {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        names, handles = list(named_once), list(named_once.values())
        more = [f"and {len(names) - LABELLED} lines more"] * (len(names) > LABELLED)
        axes.legend(handles[: LABELLED + len(more)], names[:LABELLED] + more, fontsize=7)
    with atomic_write(file) as part:
        figure.savefig(part, dpi=110)


def svg(panel: Panel) -> str:
    """One panel as an element of a page: no resource of its own, text and lines in the colours of the page."""
    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 11, "svg.hashsalt": panel.title}):
        figure = Figure(figsize=PHONE, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        draw(axes, panel, INK, FAINT)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    element = text.getvalue()
    element = element[element.index("<svg") :]
    for pattern, instead in (
        (r"<metadata>.*?</metadata>", ""),
        (r' xmlns(:\w+)?="[^"]*"', ""),
        (r"xlink:href", "href"),
        (r'<g id="[^"]*">', "<g>"),
        (r' width="[^"]*pt" height="[^"]*pt"', f' role="img" aria-label="quality against {COSTS[panel.cost]}"'),
        (INK, "var(--ink)"),
        (FAINT, "var(--line)"),
        (r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif"),
    ):
        element = re.sub(pattern, instead, element, flags=re.DOTALL)
    return element
