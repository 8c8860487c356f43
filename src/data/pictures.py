"""Picture files: whether they are there, how large they are, and what is in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image
from PIL.Image import Transpose

from src.data.problems import Kind, Problem, refuse

# By EXIF's orientation. ImageOps.exif_transpose would write the tags anew, and fail on photos whose others are broken.
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def read_picture(file: Path) -> Image.Image:
    """A decoded picture, turned as its camera says. Raises DataError naming a file that cannot be decoded."""
    with readable(file):
        picture = Image.open(file)
        picture.load()
        turn = TURNS.get(orientation(picture.getexif()))
    return picture if turn is None else picture.transpose(turn)


def header_size(file: Path) -> tuple[int, int]:
    """(height, width) of a picture as `read_picture` gives it, from its header alone. Raises DataError."""
    with readable(file), Image.open(file) as picture:
        # of the class, as PNG's own method would decode the file
        turned = orientation(Image.Image.getexif(picture)) in range(5, 9)
        return picture.size if turned else picture.size[::-1]


def orientation(tags: Image.Exif) -> Any:
    """A key of TURNS, 1 for a picture that is upright, or what else a broken file says."""
    return tags.get(ExifTags.Base.Orientation, 1)


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """A place where a picture is read: what goes wrong is a DataError."""
    try:
        yield
    except FileNotFoundError:
        refuse([missing(file)])
    except Exception as error:  # Pillow raises whatever its parsers met
        refuse([Problem(Kind.UNREADABLE, str(file), "", f"cannot be decoded ({error})", "a file that is whole")])


def missing(file: Path) -> Problem:
    return Problem(Kind.MISSING, str(file.absolute()), "", "no such picture", "the file that is named")


def other_size(file: Path, found: tuple[int, int], expected: tuple[int, int], why: str) -> Iterator[Problem]:
    """A picture that is not as large, (height, width), as it should be."""
    if found != expected:
        size = "{} x {}".format(*found)
        yield Problem(Kind.SIZE, str(file), "", f"is {size} (height x width)", "{} x {}, ".format(*expected) + why)
