"""Pictures of any mode as 8 bits of red, green and blue."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.formats.images import image_size, image_tensor

COLORS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
WIDE = np.linspace(0, 65535, 48, dtype=np.uint16).reshape(6, 8)


def shown(picture: Image.Image, file: Path, **options: Any) -> np.ndarray:
    picture.save(file, **options)
    return image_tensor(file).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_modes_look_as_pillow_shows_them(mode: str, tmp_path: Path) -> None:
    """Grey, with a palette or with transparency: three channels, what is transparent in its own colour."""
    picture = Image.fromarray(COLORS).convert(mode)
    assert np.array_equal(shown(picture, tmp_path / "a.png"), np.asarray(picture.convert("RGB")))


def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path) -> None:
    """Pillow itself would clip at 255, and show white."""
    pixels = shown(Image.fromarray(WIDE), tmp_path / "a.png")
    assert np.array_equal(pixels, np.repeat(WIDE[..., None] >> 8, 3, 2))
    assert np.array_equal(shown(Image.fromarray(WIDE.astype(np.int32)), tmp_path / "a.tiff"), pixels)


def test_cmyk_comes_out_in_its_colours(tmp_path: Path) -> None:
    """Ink, not light: no ink is white."""
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:, :, 0] = 255
    pixels = shown(Image.fromarray(ink, "CMYK"), tmp_path / "a.jpg", quality=100)
    assert np.abs(pixels.astype(int) - (0, 255, 255)).max() < 8


def test_a_picture_is_turned_as_the_camera_says(tmp_path: Path) -> None:
    """Orientation 6: a quarter turn clockwise."""
    exif = Image.Exif()
    exif[0x112] = 6
    assert np.array_equal(shown(Image.fromarray(COLORS), tmp_path / "a.png", exif=exif), np.rot90(COLORS, -1))


def test_broken_tags_beside_the_orientation_change_nothing(tmp_path: Path) -> None:
    """A width that is text: some cameras and editors write such."""
    tags = [(0x100, 2, 3, b"ab\0\0"), (0x112, 3, 1, b"\6\0\0\0")]
    entries = b"".join(struct.pack("<HHI4s", *tag) for tag in tags)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    pixels = shown(Image.fromarray(COLORS), tmp_path / "a.png", exif=exif)
    assert np.array_equal(pixels, np.rot90(COLORS, -1))


@pytest.mark.parametrize("suffix", ["png", "webp"])
@pytest.mark.parametrize("tags", [b"rubbish rubbish", b"II*\0"])
def test_tags_that_cannot_be_read_change_nothing(tags: bytes, suffix: str, tmp_path: Path) -> None:
    """The pixels are whole all the same."""
    file = tmp_path / f"a.{suffix}"
    pixels = shown(Image.fromarray(COLORS), file, exif=b"Exif\0\0" + tags, lossless=True)
    assert np.array_equal(pixels, COLORS)
    assert image_size(file) == (6, 8)


@pytest.mark.filterwarnings("error")
def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    """In its own colours."""
    picture = Image.fromarray(COLORS).convert("P")
    pixels = shown(picture, tmp_path / "a.png", transparency=bytes(range(256)))
    assert np.array_equal(pixels, np.asarray(picture.convert("RGB")))


def test_arrays_and_images_are_photos_too() -> None:
    """All the same one."""
    expected = torch.from_numpy(COLORS.copy()).permute(2, 0, 1)
    for image in (COLORS, Image.fromarray(COLORS), expected):
        assert torch.equal(image_tensor(image), expected)
    assert torch.equal(image_tensor(COLORS[..., 0]), expected[:1].expand(3, -1, -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (COLORS.astype(np.float32), r"is ndarray \(6, 8, 3\) float32, expected a path"),
        (COLORS[:0], "expected a path"),
        (torch.zeros(8, 6, 3, dtype=torch.uint8), "expected a path"),
        (None, "is NoneType, expected a path"),
        (Image.fromarray(COLORS[..., 0].astype(np.float32)), "floating-point pixels"),
    ],
)
def test_what_is_no_photo_is_refused(image: Any, message: str) -> None:
    """Other types, layouts and numbers; a scale of floats would be a guess."""
    with pytest.raises(ValueError, match=message):
        image_tensor(image)
