"""Pictures as the model takes them: 8 bits of red, green and blue, the right way up.

Letters: H x W pixels.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.data.formats.image_files import MOST, read_picture

SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # of Pillow's modes; some files of 16 bits open as 32


def rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode in RGB; of 16 bits the upper 8, where Pillow would clip. Raises ValueError for floats."""
    if picture.mode in SIXTEEN_BITS:
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) >> 8).astype(np.uint8))
    if picture.mode == "F":
        raise ValueError("floating-point pixels, expected 8 or 16 bits")
    if picture.mode == "P" and isinstance(picture.info.get("transparency"), bytes):
        picture = picture.convert("RGBA")  # the same colours, and Pillow would warn of the other way
    return picture.convert("RGB")


def tensor(picture: Image.Image) -> Tensor:
    """A picture as (3, H, W) uint8 RGB, a view of H x W x 3."""
    return torch.from_numpy(np.array(rgb(picture))).permute(2, 0, 1)


def read_photo(file: Path, most: int = MOST) -> Tensor:
    """The picture in a file as (3, H, W) uint8 RGB. Raises ValueError naming a file that is none or has more pixels."""
    picture = read_picture(file, most)
    try:
        return tensor(picture)
    except ValueError as error:
        raise ValueError(f"{file}: no photo ({error})") from error


def photo(image: Any, most: int = MOST) -> Tensor:
    """An image as (3, H, W) uint8 RGB.

    Args:
        image: a path, a Pillow image, an array (H, W, 3) or (H, W) or a tensor (3, H, W), these two uint8.
        most: pixels that a file may have.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is no image.
    """
    if isinstance(image, str | Path):
        return read_photo(Path(image), most)
    if isinstance(image, Image.Image):
        return tensor(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] in ((), (3,)) and image.size:
        return tensor(Image.fromarray(image))
    if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.shape[:-2] == (3,) and image.numel():
        return image
    found = " ".join(str(part) for part in (getattr(image, "shape", ""), getattr(image, "dtype", "")) if str(part))
    raise ValueError(
        f"image: is {type(image).__name__} {found}".rstrip() + ", expected a path, a Pillow image, "
        "an array (H, W, 3) or a tensor (3, H, W) of uint8"
    )
