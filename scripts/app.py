"""A page that shows what an export finds in a photo at every exit, and which exit a gate or a budget takes.

python -m scripts.app export=FOLDER                  FOLDER is what `python -m src.export` wrote
python -m scripts.app export=FOLDER --port 7861      http://127.0.0.1:7861, for this machine alone

It needs gradio, onnxruntime, numpy and Pillow, and no torch: pip install '.[app]', or these four in an environment of
their own, since gradio wants a Pillow older than that of constraints.txt. The page loads nothing from elsewhere.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from src.exporting.runtime import Answer, Router, paint, read_photo
from src.system.terminal import fail

SIDE = 640  # pixels of a picture on the page
HEADS = ["exit", "GFLOPs", "ms", "segments", ""]
EXIT, GATE, GFLOPS, MS = "one exit", "gate and beta", "budget in GFLOPs", "budget in ms"


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        fail(message)


class Viewer:
    """Answers what the page asks for, from one export."""

    def __init__(self, folder: Path, threads: int | None = None):
        self.router = Router(folder, threads=threads)
        self.exits, self.gate = self.router.manifest["exits"], self.router.manifest["gate"]
        self.last: tuple[str, Any] = "", None  # the photo that was looked at last, and what was found in it

    def ways(self) -> list[str]:
        """Return how exits can be chosen: by what the gate and the measured times allow."""
        steered = self.gate is not None and bool(self.gate["prices"])
        free = self.gate is None or steered
        return [EXIT, *[GATE] * (self.gate is not None), *[GFLOPS] * free, *[MS] * (free and self.measured())]

    def measured(self) -> bool:
        """Return whether there are times of this machine."""
        try:
            self.router.costs.look_up()
        except ValueError:
            return False
        return True

    def betas(self) -> list[float]:
        """Return the gate's betas, rising; none if it has no prices."""
        prices = [] if self.gate is None else self.gate["prices"] or []
        return sorted(one["beta"] for one in prices if one["beta"] is not None)

    def range_of(self, unit: str) -> tuple[float, float]:
        """Return the least and the largest cost of an image of the manifest's sizes, outwards to three digits."""
        costs = self.router.costs.ms if unit == MS else self.router.costs.gflops
        every = [cost for one in self.router.manifest["costs"] for cost in costs(one["size"]).values()]
        return rounded(min(every), math.floor), rounded(max(every), math.ceil)

    def settings(self, way: str, exit: int, beta: float, gflops: float, ms: float) -> dict[str, Any]:
        """Return the settings of `Choice` for what is set on the page."""
        known: dict[str, dict[str, Any]] = {
            EXIT: {"exit": exit},
            GATE: {"beta": beta if self.betas() else None},
            GFLOPS: {"budget_gflops": gflops},
        }
        return known.get(way, {"budget_ms": ms})

    def every_exit(self, file: str) -> tuple[np.ndarray, list[tuple[Image.Image, str]], list[list[Any]]]:
        """Return a photo, a picture with a caption of each exit, and the rows of the table; the last ones are kept."""
        if self.last[0] != file:
            photo, pictures, rows = read_photo(file), [], []
            for depth in self.exits:
                self.answer(photo, exit=depth)  # to warm up
                answer = self.answer(photo, exit=depth)
                pictures.append((self.picture(photo, answer), f"exit {depth}, {answer.ms:.1f} ms"))
                rows.append([depth, round(answer.gflops, 3), round(answer.ms, 1), count(answer), ""])
            self.last = file, (photo, pictures, rows)
        photo, pictures, rows = self.last[1]
        return photo, pictures, [[*row] for row in rows]

    def answer(self, photo: np.ndarray, **settings: Any) -> Answer:
        """Return the answer for a photo (H, W, 3) uint8. Raises ValueError for a setting that cannot be met."""
        self.router.choose_by(**settings)
        (answer,) = self.router.answers([photo])
        return answer

    def picture(self, photo: np.ndarray, answer: Answer) -> Image.Image:
        """Return a photo under its segments, small enough for the page."""
        small = Image.fromarray(photo)
        small.thumbnail((SIDE, SIDE))
        return paint(small, answer, self.router.manifest["classes"])


def rounded(value: float, direction: Callable[[float], float]) -> float:
    """Return a number above 0 with three significant digits, rounded by math.floor or math.ceil."""
    digits = 2 - math.floor(math.log10(value))
    return round(direction(value * 10**digits) / 10**digits, digits)


def caption(answer: Answer) -> str:
    return f"exit {answer.exit}: {answer.gflops:.4g} GFLOPs, {answer.ms:.1f} ms"


def count(answer: Answer) -> int:
    """Return how many segments, instances or classes an answer has."""
    if answer.panoptic is not None:
        return len(answer.panoptic.labels)
    if answer.instances is not None:
        return len(answer.instances.labels)
    return 0 if answer.semantic is None else len(np.unique(answer.semantic))


def page(viewer: Viewer, gradio: Any) -> Any:
    """Return the page: a photo and how to choose on the left; the choice, every exit and a table on the right."""
    exits, ways, betas = viewer.exits, viewer.ways(), viewer.betas() or [0.0, 1.0]

    def shown(call: Any) -> Any:
        """The same function, with what is wrong as a note on the page."""

        def shown(*values: Any) -> Any:
            try:
                return call(*values)
            except ValueError as error:
                raise gradio.Error(str(error), duration=None, print_exception=False) from error

        return shown

    def look(file: str | None, *values: Any) -> tuple[Any, ...]:
        if file is None:
            return None, None, None, ""
        photo, pictures, rows = viewer.every_exit(file)
        answer = viewer.answer(photo, **viewer.settings(*values))
        rows[exits.index(answer.exit)][-1] = "chosen"
        return viewer.picture(photo, answer), pictures, rows, f"### {caption(answer)}"

    with gradio.Blocks(title=viewer.router.manifest["name"], analytics_enabled=False) as made:
        gradio.Markdown(f"## {viewer.router.manifest['name']}: what is found at every exit, and which one is taken")
        with gradio.Row():
            with gradio.Column(scale=1):
                photo = gradio.Image(type="filepath", label="photo", sources=["upload", "clipboard"])
                way = gradio.Radio(ways, value=ways[0], label="the exit is chosen by")
                exit = gradio.Slider(exits[0], exits[-1], exits[-1], step=1, label="exit (encoder layers)")
                beta = gradio.Slider(betas[0], betas[-1], betas[0], label="beta", visible=bool(viewer.betas()))
                gflops, ms = (
                    gradio.Slider(*viewer.range_of(unit), viewer.range_of(unit)[1], label=unit)
                    if unit in ways
                    else gradio.Number(0, visible=False)
                    for unit in (GFLOPS, MS)
                )
            with gradio.Column(scale=3):
                said = gradio.Markdown()
                chosen = gradio.Image(label="at the chosen exit", interactive=False)
                gallery = gradio.Gallery(
                    label="at every exit",
                    columns=min(len(exits), 4),
                    object_fit="contain",
                    height=240 * -(-len(exits) // 4),
                )
                table = gradio.Dataframe(headers=HEADS, label="every exit on this photo", interactive=False)
        inputs, outputs = [photo, way, exit, beta, gflops, ms], [chosen, gallery, table, said]
        changes = [one.change for one in inputs if isinstance(one, gradio.Slider | gradio.Image | gradio.Radio)]
        gradio.on(changes, shown(look), inputs, outputs, trigger_mode="always_last")
    return made


def folder_of(text: str) -> Path:
    """Return the folder of export=FOLDER, or of FOLDER."""
    return Path(text.removeprefix("export="))


def main(arguments: Sequence[str] | None = None) -> None:
    """Show the page until it is stopped."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=folder_of, metavar="export=FOLDER", help="what python -m src.export wrote")
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    parser.add_argument("--threads", type=int, metavar="N", help="of onnxruntime; default: one for each CPU")
    args = parser.parse_args(arguments)
    try:
        viewer = Viewer(args.export, args.threads)
    except (ValueError, OSError) as error:
        fail(str(error))
    try:
        import gradio
    except ImportError as error:
        fail(f"gradio: cannot be loaded ({error}); pip install '.[app]'")
    font = ["system-ui", "sans-serif"]
    theme = gradio.themes.Default(font=font, font_mono=["monospace"])
    try:
        page(viewer, gradio).launch(server_name="127.0.0.1", server_port=args.port, theme=theme)
    except OSError as error:
        fail(f"--port {args.port}: {error}")


if __name__ == "__main__":
    main()
