"""Judge whether gates earn their keep: python -m src.judge TABLE [GATE...] [--again TABLE2]."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from src.judging.files import write_answers
from src.judging.session import Answers, Question, answer
from src.judging.tables import caption, rich_tables, verdicts
from src.system.terminal import fail

EPILOG = """
TABLE is an exit table of images that no gate has seen, written by python -m src.label; of the table that a gate was
trained from, only its holdout counts. GATE is a best.ckpt, or the run folder of a gate. Without a gate the question
is what any gate could earn.

  python -m src.judge TABLE runs/eco_gate_coco/TIME             one gate, at its own beta
  python -m src.judge TABLE GATE --again TABLE2 --out judged    with the noise ceiling, figures and a picture
  python -m src.judge TABLE --again TABLE2 --beta 0.001 0.01    what could a gate earn?

TABLE2 measures the same images once more: a parent trained with another seed, or the same parent on mirrored images.
What both tables agree on is a property of the image; the rest of the oracle's lead is noise, which no gate can see.
All answers have 95 % intervals over images. docs/eco-m2f.md says what each figure means.
"""


def main() -> None:
    """Read the command line, judge, and print the answers."""
    parser = argparse.ArgumentParser(
        "python -m src.judge",
        description="Judge gates: does choosing an exit for each image pay, compared with chance and fixed exits?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", metavar="TABLE", type=Path, help="folder of an exit table")
    parser.add_argument("gates", metavar="GATE", nargs="*", type=Path, help="checkpoints or run folders of gates")
    parser.add_argument(
        "--beta", metavar="B", dest="betas", nargs="+", default=[], type=number("0 or more", lambda value: value >= 0),
        help="gain in quality that an encoder layer must bring; for tables without gates, for gates that predict "
        "quality and for gates of another quality than the table's; default: the gate's own, or a few",
    )  # fmt: skip
    parser.add_argument("--again", metavar="TABLE2", type=Path, help="a second measurement of the same images")
    parser.add_argument(
        "--worth", metavar="U", default=0.002, type=number("above 0", lambda value: value > 0),
        help="least lead in utility that would be worth a gate; default: 0.002, which is 0.2 points of quality",
    )  # fmt: skip
    parser.add_argument("--resamples", metavar="R", default=2000, type=whole(100), help="of the images; default: 2000")
    parser.add_argument("--seed", metavar="S", default=0, type=whole(0), help="of the resamples; default: 0")
    parser.add_argument(
        "--block", metavar="N", default=1, type=whole(1),
        help="resample N neighbouring images at a time: for frames of videos, which are not independent; default: 1",
    )  # fmt: skip
    parser.add_argument(
        "--out",
        metavar="OUT",
        type=Path,
        help="folder for judge.json, judge.md and judge.png; default: none is written",
    )
    given = vars(parser.parse_args())
    out = given.pop("out")
    try:
        answers = answer(Question(**given))
    except (ValueError, OSError) as error:
        fail(str(error))
    show(answers)
    if out is not None:
        try:
            write_answers(answers, out)
        except OSError as error:
            fail(f"--out {out}: {error.strerror or error}")
        print(out / "judge.md")


def show(answers: Answers) -> None:
    """Print figures and verdicts; remarks go to stderr."""
    for remark in answers.remarks:
        print(remark, file=sys.stderr)
    Console().print(*rich_tables(answers), sep="\n")
    print(caption(answers))
    if answers.question.again is None:
        print("without --again the noise ceiling is unknown, and the oracle's lead is an upper bound only")
    print(*verdicts(answers), sep="\n")


def number(expected: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """Return a reader of finite numbers for argparse."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not holds(value):
            raise argparse.ArgumentTypeError(f"{text}: expected a number, {expected}")
        return value

    return read


def whole(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: expected a whole number from {least}")
        return int(text)

    return read


if __name__ == "__main__":
    main()
