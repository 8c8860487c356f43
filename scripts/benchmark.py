"""Time this implementation: is less computed in less time, and how does it compare with that of `transformers`?

python -m scripts.benchmark                                        inference and training, minutes on a CPU
python -m scripts.benchmark inference --sizes 512x672 800x1344     two sizes
python -m scripts.benchmark inference --models transformers mask2former exit2 --rounds 9
python -m scripts.benchmark inference dim=64 num_queries=50        settings of our models stand before the options

Everything has random weights, the same where shapes agree; times do not depend on them. Writes benchmark.md,
benchmark.json with all raw times, and benchmark.png. docs/performance.md says what is compared and how to read it.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from rich.progress import track

from scripts.benchmarking import inference, labelling, memory, report, training
from scripts.benchmarking.models import Theirs, depth_of, settings
from scripts.benchmarking.plan import THEIRS, Plan, Row
from src.config.errors import MISTAKES, reason
from src.records.provenance import made_by
from src.system.atomic import check_writable
from src.system.stopwatch import Stopwatch
from src.system.terminal import fail, say_once

PARTS = ("inference", "training", "labelling")


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        fail(message)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the report and print it."""
    args = parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        check_writable(args.out)
        plan = Plan(
            settings(args.backbone, args.overrides),
            args.classes,
            torch.device(args.device),
            args.precision,
            args.compile,
            args.batch,
            args.rounds,
        )
        if args.peak:
            part, name = args.peak
            print(json.dumps(memory.measure(plan, part, name, args.sizes[0], args.side)._asdict()))
            return
        unequal = run(args, plan)
    except MISTAKES as error:
        fail(str(reason(error)))
    if unequal:
        fail("; ".join(unequal), status=1)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; exit in one line if it is wrong."""
    parser = Parser(prog="python -m scripts.benchmark", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("words", nargs="*", metavar="PART|SETTING", help=f"{', '.join(PARTS)} (default: the first two); NAME=VALUE")
    add("--backbone", choices=["swin_tiny", "resnet50"], default="swin_tiny", help="(default: %(default)s)")
    add("--sizes", nargs="+", type=size_of, default=[(512, 672)], metavar="HxW", help="of images (default: 512x672)")
    add("--models", nargs="+", metavar="NAME", help="contestants (default: all)")
    add("--rounds", type=count, default=5, help="turns of every contestant, after those to warm up (default: 5)")
    add("--batch", type=count, default=1, help="images of a forward pass in inference (default: 1)")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", choices=["cpu", "cuda"], default=default, help="(default: cuda if there is one)")
    add("--precision", choices=["32", "bf16"], default="32", help="bf16: by autocast (default: %(default)s)")
    add("--compile", action="store_true", help="compile every model with torch.compile; parts are then not timed")
    add("--threads", type=count, help="threads of torch (default: as torch chooses)")
    add("--side", type=side_of, default=512, help="of the square images of training and labelling (default: 512)")
    add("--classes", default="coco_panoptic", help="a benchmark or class list (default: %(default)s)")
    add("--out", type=Path, default=Path("benchmark"), help="folder of the report (default: %(default)s)")
    add("--no-memory", dest="memory", action="store_false", help="do not measure memory, a process each")
    add("--peak", nargs=2, help=argparse.SUPPRESS)  # part and contestant whose memory this process measures
    args = parser.parse_intermixed_args(arguments)
    args.typed = list(sys.argv[1:] if arguments is None else arguments)
    args.parts = [word for word in args.words if "=" not in word and not word.startswith("~")]
    args.overrides = [word for word in args.words if word not in args.parts]
    if unknown := [part for part in args.parts if part not in PARTS]:
        parser.error(f"{unknown[0]}: no such part, expected some of {', '.join(PARTS)}, or NAME=VALUE")
    args.parts = [part for part in PARTS if part in (args.parts or PARTS[:2])]
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU, expected cpu")
    return args


def size_of(text: str) -> tuple[int, int]:
    """Return (height, width) of 512x672."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or min(height := int(match[1]), width := int(match[2])) < 32:
        raise argparse.ArgumentTypeError(f"{text}: expected HEIGHTxWIDTH, of 32 pixels or more; settings stand first")
    return height, width


def side_of(text: str) -> int:
    """Return a side in pixels."""
    if not text.isdecimal() or int(text) < 64 or int(text) % 32:
        raise argparse.ArgumentTypeError(f"{text}: expected a multiple of 32, 64 or more")
    return int(text)


def count(text: str) -> int:
    """Return a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 1 or more")
    return int(text)


def run(args: argparse.Namespace, plan: Plan) -> list[str]:
    """Measure what is asked for, write and print it; return what is not equal."""
    stopwatch = Stopwatch.of(plan.device)
    names = contestants(args, plan)
    sections: list[report.Section] = []
    peaks: dict[str, list[memory.Memory]] = {}
    raw: dict[str, Any] = {}
    unequal = []
    if args.memory:  # first, while nothing else is loaded
        for part, some in names.items():
            bar = track(some, f"memory, {part}", console=Console(stderr=True), transient=True)
            peaks[part] = [memory.measured(part, name, args.typed) for name in bar if name != inference.GATED]
        raw["memory"] = {part: [one._asdict() for one in of_part] for part, of_part in peaks.items()}
    if "inference" in args.parts:
        models = inference.Models(plan, names["inference"], stopwatch)
        raw["inference"] = []
        for size in args.sizes:
            rows, equality = inference.measure(plan, models, size, stopwatch)
            sections.append(report.Section(title := f"Inference, {size[0]}x{size[1]}", rows, notes(equality)))
            raw["inference"].append({"size": size, "equality": equality and equality._asdict(), "rows": plain(rows)})
            if equality is not None and not equality.holds:
                unequal.append(f"{title}: the outputs differ from those of {THEIRS}: {equality}")
        del models
    if "training" in args.parts:
        rows = training.measure(plan, names["training"], args.side, stopwatch)
        title = f"Training step, {training.IMAGES} images of {args.side}x{args.side}, {training.SEGMENTS} segments each"
        sections.append(report.Section(title, rows, [training.NOTE]))
        raw["training"] = plain(rows)
    if "labelling" in args.parts:
        rows = labelling.measure(plan, args.backbone, args.overrides, args.side, stopwatch)
        sections.append(report.Section(f"Labelling, scenes of {args.side}x{args.side}", rows))
        raw["labelling"] = plain(rows)
    print(report.write(args.out, about(args, plan), sections, raw, peaks))
    Console(stderr=True).print(f"\n{args.out}/benchmark.md, benchmark.json, benchmark.png")
    return unequal


def contestants(args: argparse.Namespace, plan: Plan) -> dict[str, list[str]]:
    """Return the contestants of each part, in the order of the report. Raises ValueError for names that none has."""
    known = {"inference": inference.names_of(depth_of(plan.settings)), "training": list(training.NAMES)}
    known = {part: names for part, names in known.items() if part in args.parts}
    there = list(dict.fromkeys(name for names in known.values() for name in names))
    if known and (unknown := [name for name in args.models or () if name not in there]):
        raise ValueError(f"--models {unknown[0]}: no such contestant, expected some of {', '.join(there)}")
    if why := Theirs.missing(plan.settings):
        say_once(f"{THEIRS} is left out: {why}")
        known = {part: [name for name in names if name != THEIRS] for part, names in known.items()}
    chosen = {part: [n for n in names if args.models is None or n in args.models] for part, names in known.items()}
    if empty := next((part for part, names in chosen.items() if not names), None):
        raise ValueError(
            f"--models {' '.join(args.models)}: {empty} has none of these, expected {', '.join(known[empty])}"
        )
    return chosen


def notes(equality: inference.Equality | None) -> list[str]:
    """Return what the report says about equal outputs."""
    if equality is None:
        return []
    verdict = "The outputs are" if equality.holds else "**THE OUTPUTS ARE NOT**"
    return [f"{verdict} those of `{THEIRS}` for the same weights and images: {equality}."]


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as JSON has them."""
    return [row._asdict() for row in rows]


def about(args: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    """Return the conditions of the measurement."""
    return {
        "command": "python -m scripts.benchmark " + " ".join(args.typed),
        **made_by(plan.device),
        "transformers": version(),
        "precision": plan.precision,
        "compiled": plan.compile,
        "threads": torch.get_num_threads(),
        "backbone": args.backbone,
        "batch": plan.batch,
        "rounds": f"{plan.rounds}, after {plan.warm_up} to warm up",
    }


def version() -> str | None:
    """Return the version of `transformers`, if it was used."""
    return getattr(sys.modules.get("transformers"), "__version__", None)


if __name__ == "__main__":
    main()
