"""Picture files: whether they are there, how large they are, and what is in them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image
from PIL.Image import Transpose
from PIL.TiffImagePlugin import TiffImageFile

from src.data.problems import DataError, Kind, Problem, refuse

MOST = 178_956_970  # pixels, from where Pillow takes a picture for an attack on memory
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


def read_picture(file: Path, most: int = MOST) -> Image.Image:
    """A decoded picture, turned as its camera says. Raises DataError naming a file that cannot be decoded.

    Args:
        most: pixels that it may have.
    """
    with opened(file, most) as picture:
        picture.load()
        turn = TURNS.get(orientation(picture.getexif))  # Pillow has turned a TIFF, and taken its tag away
    return picture if turn is None else picture.transpose(turn)


def header_size(file: Path) -> tuple[int, int]:
    """(height, width) of a picture as `read_picture` gives it, from its header alone. Raises DataError."""
    with opened(file) as picture:
        # of the class, as PNG's own method would decode the file
        turned = orientation(partial(Image.Image.getexif, picture)) in range(5, 9)
        width, height = stored_size(picture)
        return (width, height) if turned else (height, width)


def stored_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) before any turn; of a TIFF, whose size Pillow may give after it, by its tags."""
    if isinstance(picture, TiffImageFile):
        return picture.tag_v2[ExifTags.Base.ImageWidth], picture.tag_v2[ExifTags.Base.ImageLength]
    return picture.size


@contextmanager
def opened(file: Path, most: int = MOST) -> Iterator[Image.Image]:
    """A picture whose header is read. Raises DataError for one that cannot be read, or has too many pixels."""
    with readable(file), limit_lifted(), Image.open(file) as picture:
        if picture.width * picture.height > most:
            refuse([too_large(file, picture.size, most)])
        yield picture


@contextmanager
def limit_lifted() -> Iterator[None]:
    """A place where Pillow opens pictures of any size: it would warn of some, and call others an attack."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def too_large(file: Path, size: tuple[int, int], most: int) -> Problem:
    width, height = size
    found = f"is {height} x {width} (height x width), {width * height / 1e6:.0f} megapixels"
    return Problem(
        Kind.REFUSED,
        str(file),
        "",
        found,
        f"at most {most / 1e6:.0f}; src.predict takes max_photo_pixels={width * height}",
    )


def orientation(tags: Callable[[], Image.Exif]) -> Any:
    """A key of TURNS, 1 for a picture that is upright or whose tags are broken, or what else a broken file says."""
    try:
        return tags().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises whatever it met in them; a file that is broken is told by its pixels
        return 1


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """A place where a picture is read: what goes wrong is a DataError."""
    try:
        yield
    except FileNotFoundError:
        refuse([missing(file)])
    except DataError:
        raise
    except Exception as error:  # Pillow raises whatever its parsers met
        refuse([Problem(Kind.UNREADABLE, str(file), "", f"cannot be decoded ({error})", "a file that is whole")])


def missing(file: Path) -> Problem:
    return Problem(Kind.MISSING, str(file.absolute()), "", "no such picture", "the file that is named")


def other_size(file: Path, found: tuple[int, int], expected: tuple[int, int], why: str) -> Iterator[Problem]:
    """A picture that is not as large, (height, width), as it should be."""
    if found != expected:
        size = "{} x {}".format(*found)
        yield Problem(Kind.SIZE, str(file), "", f"is {size} (height x width)", "{} x {}, ".format(*expected) + why)
