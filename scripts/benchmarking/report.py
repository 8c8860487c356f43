"""The report: tables in Markdown, all raw times as JSON, and a picture."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarking.plan import OURS, POST, THEIRS, Quartiles, Row, quartiles
from scripts.tables import markdown
from src.system.atomic import atomic_write, write_json, write_text

PIXEL_DECODER = ["encoder", "rest of pixel decoder"]
GROUPS = {"whole model": None, "encoder": ["encoder"], "pixel decoder": PIXEL_DECODER}  # compared with their GMAC
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

    def text(self) -> str:
        """Return the tables in Markdown."""
        tables = [self.totals(), self.ratios(), self.parts()]
        return "\n\n".join([f"## {self.title}", *self.notes, *(table for table in tables if table)])

    def totals(self) -> str:
        """Return times and multiply-adds of the whole, beside those of the first row."""
        posts = POST in self.first.seconds
        header = ["", "ms", f"time / {self.first.name}", "images / s", "GMAC", f"GMAC / {self.first.name}"]
        header += ["time ratio / GMAC ratio"] + ["ms with post-processing", f"time / {self.first.name}"] * posts
        return markdown(header, list(self.total_cells(posts)))

    def total_cells(self, posts: bool) -> Iterator[list[str]]:
        """Yield the cells of each row of `totals`."""
        for row in self.rows.values():
            times, ratio = quartiles(row.per_image()), row.time_ratio(self.first)
            cells = [label(row), spread(times, 1000), spread(ratio), f"{1 / times.median:.3g}"]
            if row.gmac:
                costs = row.cost_ratio(self.first)
                cells += [f"{row.cost():.4g}", f"{costs:.3f}", f"{ratio.median / costs:.2f}"]
            else:
                cells += [""] * 3
            if posts:
                parts = list(row.seconds)
                cells += [spread(quartiles(row.per_image(parts)), 1000), spread(row.time_ratio(self.first, parts))]
            yield cells

    def ratios(self) -> str:
        """Return for the whole and for parts the ratios of time and of multiply-adds to our own model's."""
        compared = [row for row in self.rows.values() if row.gmac and row is not self.reference(row)]
        compared = [row for row in compared if row.name != THEIRS and self.reference(row).name != THEIRS]
        if not compared or not {"encoder"} <= self.first.seconds.keys():
            return ""
        header = ["", *(f"{group}: {what}" for group in GROUPS for what in ("time", "GMAC", "time / GMAC"))]
        rows = []
        for row in compared:
            other, cells = self.reference(row), [label(row)]
            for parts in GROUPS.values():
                time, cost = row.time_ratio(other, parts), row.cost_ratio(other, parts)
                cells += [f"{time.median:.3f}", f"{cost:.3f}", f"{time.median / cost:.2f}"]
            rows.append(cells)
        return "Ratios to our own model without exits, of the same images:\n\n" + markdown(header, rows)

    def parts(self) -> str:
        """Return milliseconds by part."""
        names = list(dict.fromkeys(name for row in self.rows.values() for name in row.seconds))
        if len(names) < 2:
            return ""
        rows = []
        for row in self.rows.values():
            times = [f"{1000 * quartiles(row.per_image([n])).median:.4g}" if n in row.seconds else "" for n in names]
            rows.append([label(row), *times])
        return "ms by part:\n\n" + markdown(["", *names], rows)


def label(row: Row) -> str:
    """Return the name of a row, and the exits that its gate chose."""
    return f"{row.name} (exits {' '.join(map(str, row.exits))})" if row.exits and row.name == "gate" else row.name


def spread(values: Quartiles, scale: float = 1) -> str:
    """Return the median, and the quartiles in brackets."""
    low, median, high = (f"{scale * value:.4g}" if scale != 1 else f"{value:.3f}" for value in values)
    return f"{median} ({low} to {high})"


def write(folder: Path, about: dict[str, Any], sections: Sequence[Section], raw: dict[str, Any], more: str = "") -> str:
    """Write benchmark.md, benchmark.json and benchmark.png; return the text."""
    head = "\n".join(f"- {name}: {value}" for name, value in about.items())
    text = "\n\n".join(["# Benchmark", head, HOW_TO_READ, POSTPROCESSING, *(s.text() for s in sections), more]).rstrip()
    write_text(text + "\n", folder / "benchmark.md")
    write_json({"about": about, **raw}, folder / "benchmark.json")
    if sections:
        draw(folder / "benchmark.png", sections)
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
        points.axline((1, 1), slope=1, color="grey", linewidth=1)
        points.set(xlabel="multiply-adds, relative to our own model", ylabel="time, relative", title=section.title)
        names = list(dict.fromkeys(name for row in section.rows.values() for name in row.seconds))
        labels = [label(row) for row in section.rows.values()]
        left = [0.0] * len(labels)
        for name in names:
            widths = [
                1000 * quartiles(row.per_image([name])).median if name in row.seconds else 0.0
                for row in section.rows.values()
            ]
            bars.barh(labels, widths, left=left, label=name)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        bars.invert_yaxis()
        bars.set(xlabel="ms per image, medians of parts")
        bars.legend(fontsize=8)
    with atomic_write(file) as part:
        figure.savefig(part, dpi=120)
