"""Pictures of runs, small enough to be part of a page: images that leave early and late, and what runs predict."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from src.records.run_folder import picture_name
from src.reporting.exits import exits_of
from src.reporting.run_settings import identity
from src.reporting.runs import Run, Skipped

EARLY = 3  # images that leave first, and as many that leave last
EXAMPLES = 2  # pictures of a run without a gate
MOST = 30  # pictures of a page
WIDTH, QUALITY = 960, 80  # pixels, and of JPEG
Captions = dict[Path, str]  # by picture file


def gallery(runs: Sequence[Run]) -> tuple[str, list[Skipped]]:
    """Return the first `MOST` pictures of all runs as HTML, and the picture files that cannot be read."""
    sections: list[str] = []
    unread: list[Skipped] = []
    left, more = MOST, 0
    for title, captions in strips(runs):
        shown = ""
        for file in list(captions)[:left]:
            data, caption = embed(file), escape(captions[file])
            if data is None:
                unread.append(Skipped(file, "no picture that can be read"))
                continue
            shown += (
                f'<figure><img src="{data}" alt="{caption}" loading="lazy">'
                f'<figcaption class="soft">{caption}</figcaption></figure>'
            )
        if shown:
            sections.append(f'<h3>{escape(title)}</h3><div class="strip">{shown}</div>')
        more += max(len(captions) - left, 0)
        left = max(left - len(captions), 0)
    if more:
        sections.append(
            f'<p class="soft">{more} picture{"" if more == 1 else "s"} more in the folders of the runs.</p>'
        )
    return (f"<h2>Pictures</h2>{''.join(sections)}" if sections else ""), unread


def embed(file: Path) -> str | None:
    """Return a picture as a data URI, at most `WIDTH` pixels wide; None if it cannot be read."""
    try:
        with Image.open(file) as image:
            picture = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    picture.thumbnail((WIDTH, WIDTH))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def strips(runs: Sequence[Run]) -> list[tuple[str, Captions]]:
    """Return titles with pictures: early and late exits of gated runs, then examples of others, of one seed each."""
    gated = [(f"Left first and last: {run.folder}", early_and_late(run.folder)) for run in runs]
    ungated = [run for run in runs if not (run.folder / "exits.csv").is_file()]
    one_seed = {identity(run.settings.without_seed()): run for run in reversed(ungated)}
    examples = [(str(run.folder), first_pictures(run.folder)) for run in reversed(one_seed.values())]
    return [(title, captions) for title, captions in gated + examples if captions]


def first_pictures(folder: Path) -> Captions:
    return {file: name for name, file in list(pictures_of(folder).items())[:EXAMPLES]}


def early_and_late(folder: Path) -> Captions:
    """Return the saved pictures of images with the shallowest and the deepest exits; empty without a list of exits."""
    exits, files = {picture_name(left.name): left for left in exits_of(folder)}, pictures_of(folder)
    names = sorted((name for name in files if name in exits), key=lambda name: (exits[name].exit, exits[name].gflops))
    captions = {}
    for when, some in (("early", names[:EARLY]), ("late", names[EARLY:][-EARLY:])):
        for name in some:
            left = exits[name]
            captions[files[name]] = f"leaves {when}, at exit {left.exit} ({left.gflops:.4g} GFLOPs): {name}"
    return captions


def pictures_of(folder: Path) -> dict[str, Path]:
    """Return the picture files of a run by image name; files are called NUMBER_NAME.png and sorted by number."""
    return {file.stem.partition("_")[2]: file for file in sorted((folder / "pictures").glob("*_*.png"))}
