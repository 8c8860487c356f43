"""Pictures and what holds them: found, or told what is missing; decoded, or told which file is broken."""

from pathlib import Path

from PIL import Image, ImageOps

SOURCE = (
    "COCO, ADE20K and CamVid are fetched by `python -m scripts.prepare_coco --root FOLDER` and its siblings, "
    "Cityscapes is behind a login; data of your own needs the layout that the README shows, or its own paths in the "
    "configuration."
)


def found(path: str | Path, what: str, source: str = SOURCE) -> Path:
    """The path, if there is something there; else says what is missing and, by `source`, how to get it."""
    if not (Path(path).is_dir() if "folder" in what else Path(path).is_file()):
        raise FileNotFoundError(
            f"{what} not found: {Path(path).absolute()}. data.root=FOLDER says where the data lies. {source}"
        )
    return Path(path)


def open_picture(file: Path) -> Image.Image:
    """A decoded picture, turned as its camera says. Raises ValueError naming a file that cannot be decoded."""
    try:
        picture = Image.open(file)
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
        return picture
    except FileNotFoundError:
        raise FileNotFoundError(f"{file.absolute()}: no such picture, though it was there at the start") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: cannot be decoded ({error}); is the file whole?") from error
