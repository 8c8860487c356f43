"""Compare every published cost figure with ours: python -m scripts.published [--markdown].

Figures are GMAC (1e9 multiply-adds, which the papers call GFLOPs) of one image: 1024x2048 for Cityscapes, 800x1344 for
COCO unless stated otherwise. Rows marked "released code, run" are in no paper: we ran the authors' code with
random weights under the counter that they use, which leaves out deformable sampling.
"""

import argparse
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from src.config.build import sketch
from src.config.command_line import configure
from src.metrics.cost import Cost, Size, survey
from src.records.markdown import markdown_table

RUN, ECO = "released code, run", "ECO-M2F's code"
ABSTRACT, TABLE_3 = "PRO-SCALE, abstract", "PRO-SCALE, table 3"  # the table as its reviews quote it
# (height, width) of the network's input and of the original image; TYPICAL is the commonest size in COCO
CITYSCAPES, COCO, TYPICAL = ((1024, 2048),) * 2, ((800, 1344),) * 2, ((800, 1067), (480, 640))
PARTS = ("total", "backbone", "pixel_decoder", "encoder_layers", "decoder")
SWIN = ["model/backbone=swin_tiny"]
MODELS: dict[str, tuple[str, list[str], int, tuple[Size, Size]]] = {  # experiment, overrides, classes, sizes
    "Mask2Former, Swin-T, Cityscapes": ("mask2former_cityscapes", SWIN, 19, CITYSCAPES),
    "Mask2Former, R50, Cityscapes": ("mask2former_cityscapes", [], 19, CITYSCAPES),
    "Mask2Former, R50, COCO": ("mask2former_coco", [], 133, COCO),
    "Mask2Former, Swin-T, COCO": ("mask2former_coco", SWIN, 133, COCO),
    "PRO-SCALE 3 3 3, R50, COCO": ("proscale_coco", [], 133, COCO),
    "PRO-SCALE 3 3 3, Swin-T, COCO": ("proscale_coco", SWIN, 133, COCO),
    "Mask2Former, Swin-T, COCO 480x640": ("mask2former_coco", SWIN, 133, TYPICAL),
    "PRO-SCALE 3 3 3, Swin-T, COCO 480x640": ("proscale_coco", SWIN, 133, TYPICAL),
}
for schedule in ("1 1 1", "2 2 2", "3 3 3", "3 1 1"):
    for name, embedding in (("", "light"), (", 3x3", "conv")):
        overrides = [*SWIN, f"schedule=[{schedule.replace(' ', ',')}]", f"model/pixel_embedding={embedding}"]
        MODELS[f"PRO-SCALE {schedule}{name}, Swin-T, Cityscapes"] = ("proscale_cityscapes", overrides, 19, CITYSCAPES)
COUNTED = {  # by the released code, in the order of PARTS
    "Mask2Former, Swin-T, Cityscapes": (537.848, 195.555, 281.130, 188.800, 55.367),
    "Mask2Former, R50, Cityscapes": (524.114, 171.755, 291.196, 188.800, 55.367),
    "PRO-SCALE 3 3 3, Swin-T, Cityscapes": (392.066, 195.555, 135.348, 120.328, 55.367),
    "Mask2Former, R50, COCO": (281.726, 88.058, 149.295, 96.797, 29.144),
    "Mask2Former, Swin-T, COCO": (288.056, 99.549, 144.134, 96.797, 29.144),
    "PRO-SCALE 3 3 3, R50, COCO": (206.984, 88.058, 74.553, 61.692, 29.144),
    "PRO-SCALE 3 3 3, Swin-T, COCO": (213.314, 99.549, 69.392, 61.692, 29.144),
}
PIXEL_DECODERS = {  # by the released code, on Cityscapes
    "PRO-SCALE 1 1 1, Swin-T, Cityscapes": 55.138,
    "PRO-SCALE 1 1 1, 3x3, Swin-T, Cityscapes": 132.448,
    "PRO-SCALE 2 2 2, Swin-T, Cityscapes": 95.243,
    "PRO-SCALE 2 2 2, 3x3, Swin-T, Cityscapes": 172.553,
    "PRO-SCALE 3 3 3, 3x3, Swin-T, Cityscapes": 212.658,
    "PRO-SCALE 3 1 1, Swin-T, Cityscapes": 57.934,
    "PRO-SCALE 3 1 1, 3x3, Swin-T, Cityscapes": 135.243,
}
FURTHER = {  # more parts of COUNTED
    "Mask2Former, Swin-T, Cityscapes": {
        "input_projections": 2.874,
        "stride4_path": 3.389 + 77.477,
        "mask_convolution": 8.590,
    },
    "PRO-SCALE 3 3 3, Swin-T, Cityscapes": {"stride4_path": 3.389 + 0.168},
}
TWO_LAYERS = (411.981, 195.555, 155.263, 62.933, 55.367)  # the first of COUNTED, left after two layers
PRINTED = {"PRO-SCALE 1 1 1, Swin-T, Cityscapes": 55.14, "PRO-SCALE 1 1 1, 3x3, Swin-T, Cityscapes": 132}
EXITS = {2: 411.981, 3: 443.448, 4: 474.914, 5: 506.381, 6: 537.848}
SAVINGS = {  # change in per cent of pixel decoder and total
    "Swin-T, COCO 480x640": (-52, -27, ABSTRACT),
    "Swin-T, COCO": (-51.9, -25.9, RUN),
    "R50, COCO": (-50.1, -26.5, RUN),
    "Swin-T, Cityscapes": (-51.9, -27.1, RUN),
}


class Row(NamedTuple):
    """A figure, published or counted by released code, and ours."""

    model: str
    part: str
    theirs: float | None  # None: there is none
    source: str
    ours: float
    percent: bool = False

    def cells(self) -> list[str]:
        """Return the printed cells. Percentages are compared by their difference, costs by their ratio."""
        ours = f"{self.ours:.1f} %" if self.percent else f"{self.ours:.3f}"
        if self.theirs is None:
            return [self.model, self.part, "", "", ours, ""]
        if self.percent:
            theirs, difference = f"{self.theirs:g} %", f"{self.ours - self.theirs:+.1f} pts"
        else:
            theirs, difference = f"{self.theirs:g}", f"{100 * (self.ours / self.theirs - 1):+.3f} %"
        return [self.model, self.part, theirs, self.source, ours, difference]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    arguments = parser.parse_args()
    bar = track(MODELS, "counting", console=Console(stderr=True), transient=True)
    costs = {model: counted(*MODELS[model]) for model in bar}
    rows = [row.cells() for row in [*parts(costs), *papers(costs), *savings(costs)]]
    header = ["model", "part", "theirs", "where it stands", "ours", "difference"]
    if arguments.markdown:
        print(markdown_table(header, rows))
        return
    table = Table(box=SIMPLE, title="GMAC, published or of released code beside ours")
    for name in header:
        table.add_column(name, no_wrap=True, justify="right" if name in ("theirs", "ours", "difference") else "left")
    for model, group in groupby(rows, key=lambda row: row[0]):
        table.add_section()
        for number, row in enumerate(group):
            table.add_row("" if number else model, *row[1:])
    Console(width=128).print(table)


def counted(experiment: str, overrides: list[str], num_classes: int, view: tuple[Size, Size]) -> dict[int, Cost]:
    """Return our cost of a model by the depth at which an image leaves."""
    model = sketch(configure([f"+experiment={experiment}", *overrides, "paths.run=."]), num_classes).model
    return survey(model, [view], range(1, model.pixel_decoder.encoder.depth + 1))


def deepest(costs: dict[int, Cost]) -> Cost:
    """Return the cost of the last layer."""
    return costs[max(costs)]


def parts(costs: dict[str, dict[int, Cost]]) -> Iterator[Row]:
    """Yield totals and parts as counted by the released code."""
    for model, figures in COUNTED.items():
        for part, figure in {**dict(zip(PARTS, figures, strict=True)), **FURTHER.get(model, {})}.items():
            yield Row(model, part, figure, RUN, getattr(deepest(costs[model]), part))
    for part, figure in zip(PARTS, TWO_LAYERS, strict=True):
        ours = getattr(costs["Mask2Former, Swin-T, Cityscapes"][2], part)
        yield Row("Mask2Former, Swin-T, exit 2", part, figure, RUN, ours)
    for model, figure in PIXEL_DECODERS.items():
        yield Row(model, "pixel_decoder", figure, RUN, deepest(costs[model]).pixel_decoder)


def papers(costs: dict[str, dict[int, Cost]]) -> Iterator[Row]:
    """Yield figures from the papers, their reviews or their code."""
    for depth, figure in EXITS.items():
        ours = costs["Mask2Former, Swin-T, Cityscapes"][depth].total
        yield Row("ECO-M2F, Swin-T, Cityscapes", f"total, exit {depth}", figure, ECO, ours)
    for model, figure in PRINTED.items():
        yield Row(model, "pixel_decoder, printed", figure, TABLE_3, deepest(costs[model]).pixel_decoder)


def savings(costs: dict[str, dict[int, Cost]]) -> Iterator[Row]:
    """Yield the savings of PRO-SCALE 3 3 3 over Mask2Former, in total and by part."""
    for place, (decoder, total, source) in SAVINGS.items():
        before, after = (deepest(costs[f"{name}, {place}"]) for name in ("Mask2Former", "PRO-SCALE 3 3 3"))
        model = f"PRO-SCALE 3 3 3, {place}"
        saved = before.pixel_decoder - after.pixel_decoder
        layers = before.encoder_layers - after.encoder_layers
        yield Row(model, "pixel_decoder, change", decoder, source, -100 * saved / before.pixel_decoder, True)
        yield Row(model, "total, change", total, source, -100 * saved / before.total, True)
        yield Row(model, "- by token scaling", None, "", layers)
        yield Row(model, "- by light pixel embedding", None, "", before.stride4_path - after.stride4_path)
        yield Row(model, "- token scaling's share", None, "", 100 * layers / saved, True)


if __name__ == "__main__":
    main()
