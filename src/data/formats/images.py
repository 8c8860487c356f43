"""Image files and other images: decoded upright, measured by their headers, and as tensors of 8-bit RGB.

Letters: H x W pixels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from PIL.Image import Transpose
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from src.data.problems import DataError, Kind, Problem, fail, refuse

MAX_PIXELS = 178_956_970  # from here on Pillow suspects a decompression bomb
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # Pillow's modes; some files of 16 bits open as 32
# By EXIF's orientation. ImageOps.exif_transpose would rewrite the tags, and fail on images whose other tags are broken.
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def image_tensor(image: Any, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Return an image as (3, H, W) uint8 RGB.

    Args:
        image: a path, a Pillow image, a uint8 array (H, W, 3) or (H, W), or a uint8 tensor (3, H, W).
        max_pixels: the largest image file that is read.

    Raises FileNotFoundError for a missing file, or ValueError for anything else.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image), max_pixels)
    if isinstance(image, Image.Image):
        return to_tensor(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] in ((), (3,)) and image.size:
        return to_tensor(Image.fromarray(image))
    if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.shape[:-2] == (3,) and image.numel():
        return image
    shape_and_type = "".join(f" {getattr(image, name)}" for name in ("shape", "dtype") if hasattr(image, name))
    raise ValueError(
        f"image: is {type(image).__name__}{shape_and_type}, expected a path, a Pillow image, an array (H, W, 3) or a "
        "tensor (3, H, W) of uint8"
    )


def read_image(file: Path, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read an image file as (3, H, W) uint8 RGB. Raises ValueError, or FileNotFoundError, naming the file."""
    image = open_image(file, max_pixels)
    try:
        return to_tensor(image)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image as (3, H, W) uint8 RGB, a view of H x W x 3; of 16 bits the upper 8. Raises ValueError."""
    if image.mode in SIXTEEN_BITS:  # Pillow would clip
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels, expected 8 or 16 bits")
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # the same colours, without a warning of Pillow
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def open_image(file: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file and turn it as its EXIF tags say. Raises DataError naming the file."""
    with opened(file, max_pixels) as image:
        image.load()
        turn = TURNS.get(orientation(image.getexif))  # Pillow has turned a TIFF already, and removed the tag
    return image if turn is None else image.transpose(turn)


def image_size(file: Path) -> tuple[int, int]:
    """Return the (height, width) that `open_image` gives, from the header alone. Raises DataError."""
    with opened(file) as image:
        # Image.getexif of the base class: PNG's own method would decode the file
        turned = orientation(partial(Image.Image.getexif, image)) in range(5, 9)
        width, height = image.size
        if isinstance(image, TiffImageFile):  # Pillow may give the size after the turn
            width, height = image.tag_v2[ExifTags.Base.ImageWidth], image.tag_v2[ExifTags.Base.ImageLength]
        return (width, height) if turned else (height, width)


@contextmanager
def opened(file: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image file of at most so many pixels and read its header; what fails inside is a DataError."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would warn of some images and refuse others
    try:
        with Image.open(file) as image:
            pixels = image.width * image.height
            if pixels > max_pixels:
                found = f"is {image.height} x {image.width} (height x width), {pixels / 1e6:.0f} megapixels"
                expected = f"at most {max_pixels / 1e6:.0f}; src.predict takes max_photo_pixels={pixels}"
                fail(Kind.REFUSED, file, found, expected)
            yield image
    except FileNotFoundError:
        refuse([missing(file)])
    except DataError:
        raise
    except Exception as error:  # Pillow's parsers raise errors of any type
        fail(Kind.UNREADABLE, file, f"cannot be decoded ({error})", "a complete file")
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def orientation(read_tags: Callable[[], Image.Exif]) -> Any:
    """Return EXIF's orientation, 1 (upright) if there is none or the tags are broken."""
    try:
        return read_tags().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's parsers raise errors of any type; decoding tells whether the pixels are broken too
        return 1


def missing(file: Path) -> Problem:
    return Problem(Kind.MISSING, str(file.absolute()), "", "no such image file", "a file of that name")


def other_size(file: Path, size: tuple[int, int], expected: tuple[int, int], why: str) -> Iterator[Problem]:
    """Report an image whose size, (height, width), is not the expected one."""
    if size != expected:
        found = "is {} x {} (height x width)".format(*size)
        yield Problem(Kind.SIZE, str(file), "", found, "{} x {}, ".format(*expected) + why)
