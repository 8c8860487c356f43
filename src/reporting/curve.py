"""The trade-off as a picture: PNG for papers, SVG in the colours of the page around it."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
GREY = "#888888"  # of published figures, random exits and the Pareto front
INK, FAINT = "#010203", "#040506"  # placeholders, which `svg` replaces by the page's colours
PHONE = (4.4, 3.5)  # inches: about the size on a phone, so that text can be read there
LABELLED = 12  # entries that a legend inside the picture has room for
COSTS = {
    **dict.fromkeys(("gflops", "image_gflops", "total_gflops"), "GFLOPs of an image (1e9 multiply-adds)"),
    LATENCY: "ms of an image, alone in its batch",
}
NAMES = {"pq": "PQ, %", "ap": "AP, %", "miou": "mIoU, %", "box_ap": "box AP, %", "quality": "quality of an image"}


def colors(panel: Panel) -> dict[str, str]:
    """Return a colour for every series."""
    return {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(panel.labels)}


def named(label: str, kind: str) -> str:
    """Return the name of a line; lines of random exits share one name and have the colours of their gates."""
    return f"{KINDS[kind]}, in the gate's colour" if kind == "random" else f"{KINDS[kind]}: {label}"


def draw(axes: Axes, panel: Panel, ink: str = "black", faint: str = "#dddddd") -> None:
    """Draw quality against cost; error bars are one standard deviation over seeds."""
    color = colors(panel)
    for (label, kind), line in panel.series.items():
        points = [point for point in line if point.drawn]
        if not points:
            continue
        xs, ys = zip(*(point.at for point in points), strict=True)
        bars = [point.deviation(point.quality) or 0 for point in points]
        axes.errorbar(
            xs, ys, bars if any(bars) else None, fmt=STYLES[kind], color=color[label], label=named(label, kind),
            markersize=4.5, linewidth=1.2, capsize=2, alpha=0.55 if kind == "random" else 1,
        )  # fmt: skip
        if kind == "exit" and len(panel.points) <= 60:
            for point in points:
                below: Any = {"xytext": (0, -12), "textcoords": "offset points", "ha": "center"}
                axes.annotate(point.depth, point.at, fontsize=9, color=ink, **below)
    if len(front := panel.front()) > 1:
        xs, ys = zip(*(point.at for point in front), strict=True)
        axes.step(xs, ys, where="post", color=GREY, linewidth=5, alpha=0.22, label="Pareto front", zorder=0)
    draw_published(axes, panel, ink)
    axes.set_xlabel(COSTS[panel.cost], color=ink)
    axes.set_ylabel(NAMES[panel.quality], color=ink)
    axes.grid(color=faint, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=6)
    axes.tick_params(colors=ink)
    axes.spines[:].set_color(faint)


def draw_published(axes: Axes, panel: Panel, ink: str) -> None:
    """Draw published figures as stars, with their letters in the table."""
    for one in published_on(panel.data_set, panel.quality):
        if one.gflops and panel.cost != LATENCY:
            at = (float(one.gflops), float(one.score))
            name = f"published {one.letter}: {one.model}"
            axes.plot(*at, STYLES["published"], color=GREY, label=name, markersize=9)
            axes.annotate(one.letter, at, (5, 5), textcoords="offset points", fontsize=9, color=ink)


def write_png(panels: Sequence[Panel], file: Path) -> None:
    """Draw all panels, one below the other."""
    figure = Figure(figsize=(8.5, 5.2 * len(panels)), layout="constrained")
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        draw(axes, panel)
        axes.set_title(panel.title, fontsize=10)
        legend = {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        names = list(legend)
        if len(names) > LABELLED:
            names[LABELLED:] = [f"and {len(names) - LABELLED} lines more"]
        axes.legend(list(legend.values())[: len(names)], names, fontsize=7)
    with atomic_write(file) as part:
        figure.savefig(part, dpi=110)


def svg(panel: Panel) -> str:
    """Return one panel as an HTML element that needs no other file and takes its colours from the page."""
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
