"""The report: tables in Markdown, all raw times as JSON, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarking.memory import Memory
from scripts.benchmarking.plan import OURS, POST, THEIRS, Quartiles, Row, quartiles
from src.records.markdown import markdown_table
from src.system.atomic import atomic_write, write_json, write_text

PIXEL_DECODER = ["encoder", "rest of pixel decoder"]
GROUPS = {"whole model": None, "encoder": ["encoder"], "pixel decoder": PIXEL_DECODER}  # compared with their GMAC
FORWARD = ["backbone", *PIXEL_DECODER, "decoder"]
ORDER = [*FORWARD, POST, "matching", "losses", "backward", "optimiser"]
HOW_TO_READ = (
    "Times are of one image, medians over rounds, with the quartiles in brackets. In a round all rows take turns; a "
    "ratio is the median of the ratios of single rounds. GMAC are 1e9 multiply-adds as `python -m src.cost` counts "
    "them. A time ratio over a GMAC ratio of 1 means that time was saved as multiply-adds were, and more than 1 that "
    "less time was saved."
)
POSTPROCESSING = (
    "Post-processing is panoptic segmentation at the size of the image, of the same class scores for every row. That "
    "of `transformers` is another algorithm: it resizes all masks to 384x384 first."
)


class Section:
    """The rows of one part of the benchmark at one size."""

    def __init__(self, title: str, rows: Sequence[Row], notes: Sequence[str] = ()):
        self.title, self.notes = title, list(notes)
        self.rows = {row.name: row for row in rows}
        self.first = next(iter(rows))

    def reference(self, row: Row) -> Row:
        """Return the row of ours that a row is compared with."""
        return self.rows.get(row.reference, self.first)

    def timed(self) -> list[str]:
        """Return the parts that were timed, in the order of the data's way."""
        names = {name for row in self.rows.values() for name in row.seconds}
        return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else -1, name))

    def text(self) -> str:
        """Return the tables in Markdown."""
        tables = [self.totals(), self.ratios(), self.parts()]
        return "\n\n".join([f"## {self.title}", *self.notes, *(table for table in tables if table)])

    def totals(self) -> str:
        """Return times and multiply-adds of the whole, beside those of the first row."""
        counted, posts, first = bool(self.first.gmac), POST in self.first.seconds, self.first.name
        header = ["", "ms / image", f"time / {first}", "images / s"]
        header += ["GMAC", f"GMAC / {first}", "time ratio / GMAC ratio"] * counted
        header += ["ms / image with post-processing", f"time / {first}"] * posts
        return markdown_table(header, [self.total_cells(row, counted, posts) for row in self.rows.values()])

    def total_cells(self, row: Row, counted: bool, posts: bool) -> list[str]:
        """Return the cells of a row of `totals`."""
        times, ratio = quartiles(row.per_image()), row.time_ratio(self.first)
        cells = [label(row), spread(times, 1000), spread(ratio), f"{1 / times.median:.3g}"]
        if row.gmac:
            costs = row.cost_ratio(self.first)
            cells += [f"{row.cost():.4g}", f"{costs:.3f}", f"{ratio.median / costs:.2f}"]
        elif counted:
            cells += [""] * 3
        if posts:
            parts = list(row.seconds)
            cells += [spread(quartiles(row.per_image(parts)), 1000), spread(row.time_ratio(self.first, parts))]
        return cells

    def ratios(self) -> str:
        """Return for the whole and for parts the ratios of time and of multiply-adds to our own model's."""
        compared = [row for row in self.rows.values() if row.gmac and row is not self.reference(row)]
        compared = [row for row in compared if row.name != THEIRS and self.reference(row).name != THEIRS]
        if not compared or not {"encoder"} <= self.first.seconds.keys():
            return ""
        header = ["", "beside", *(f"{group}: {what}" for group in GROUPS for what in ("time", "GMAC", "time / GMAC"))]
        rows = []
        for row in compared:
            other = self.reference(row)
            cells = [label(row), other.name]
            for parts in GROUPS.values():
                time, cost = row.time_ratio(other, parts), row.cost_ratio(other, parts)
                cells += [f"{time.median:.3f}", f"{cost:.3f}", f"{time.median / cost:.2f}"]
            rows.append(cells)
        return "Ratios of single parts, within our own models:\n\n" + markdown_table(header, rows)

    def parts(self) -> str:
        """Return milliseconds by part."""
        names = self.timed()
        if len(names) < 2:
            return ""
        rows = []
        for row in self.rows.values():
            times = [f"{1000 * quartiles(row.per_image([n])).median:.4g}" if n in row.seconds else "" for n in names]
            rows.append([label(row), *times])
        return "ms by part:\n\n" + markdown_table(["", *names], rows)


def label(row: Row) -> str:
    """Return the name of a row, and the exits that its gate chose."""
    return f"{row.name} (exits {' '.join(map(str, row.exits))})" if row.exits and row.name == "gate" else row.name


def spread(values: Quartiles, scale: float = 1) -> str:
    """Return the median, and the quartiles in brackets."""
    low, median, high = (f"{scale * value:.4g}" if scale != 1 else f"{value:.3f}" for value in values)
    return f"{median} ({low} to {high})"


def memory_text(peaks: Mapping[str, Sequence[Memory]]) -> str:
    """Return the tables of peak memory by part."""
    header = ["", "MiB before the first pass", "MiB at most", "difference"]
    tables = [f"{part}:\n\n" + markdown_table(header, [one.cells() for one in some]) for part, some in peaks.items()]
    return "\n\n".join(["## Memory, each in a process of its own", *tables]) if peaks else ""


def write(
    folder: Path,
    about: dict[str, Any],
    sections: Sequence[Section],
    raw: dict[str, Any],
    peaks: Mapping[str, Sequence[Memory]],
) -> str:
    """Write benchmark.md, benchmark.json and benchmark.png; return the text."""
    head = "\n".join(f"- {name}: {value}" for name, value in about.items())
    text = "\n\n".join(
        ["# Benchmark", head, HOW_TO_READ, POSTPROCESSING, *(s.text() for s in sections), memory_text(peaks)]
    ).rstrip()
    write_text(text + "\n", folder / "benchmark.md")
    write_json({"about": about, **raw}, folder / "benchmark.json")
    if drawn := [one for one in sections if one.first.gmac]:
        draw(folder / "benchmark.png", drawn)
    return text


def draw(file: Path, sections: Sequence[Section]) -> None:
    """Draw for each section time over multiply-adds, relative to our own model, and the parts of the time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.5 * len(sections)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(sections), 2, squeeze=False)
    for (points, bars), section in zip(axes, sections, strict=True):
        counted = [row for row in section.rows.values() if row.gmac]
        for row in counted:
            other = section.reference(row)
            if other.name == row.name and row.name != OURS:
                continue
            time, cost = row.time_ratio(other), row.cost_ratio(other)
            errors = [[time.median - time.low], [time.high - time.median]]
            points.errorbar(cost, time.median, yerr=errors, fmt="o")
            points.annotate(row.name, (cost, time.median), xytext=(6, -3), textcoords="offset points", fontsize=8)
        points.margins(0.15)
        points.axline((1, 1), slope=1, color="grey", linewidth=1)
        points.set(xlabel="multiply-adds, relative to our own model", ylabel="time, relative", title=section.title)
        labels = [label(row) for row in section.rows.values()]
        left = [0.0] * len(labels)
        for name in section.timed():
            widths = [
                1000 * quartiles(row.per_image([name])).median if name in row.seconds else 0.0
                for row in section.rows.values()
            ]
            bars.barh(labels, widths, left=left, label=name)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        bars.invert_yaxis()
        bars.set(xlabel="ms per image, medians of parts")
        bars.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    with atomic_write(file) as part:
        figure.savefig(part, dpi=120)
