"""Picture files: turned once, whatever format they are of, and no larger than is allowed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from src.data.formats.images import image_size, open_image
from src.data.problems import DataError


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 are none
def test_a_picture_is_turned_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    """As its camera says, and its header tells the size that it has then."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    plain = Image.effect_noise((20, 10), 99).convert("RGB")
    plain.save(tmp_path / f"plain{suffix}", exif=Image.Exif())
    plain.save(file := tmp_path / f"picture{suffix}", exif=exif)
    expected = Image.open(tmp_path / f"plain{suffix}").convert("RGB")
    expected.getexif()[ExifTags.Base.Orientation] = orientation
    expected = ImageOps.exif_transpose(expected)
    assert np.array_equal(open_image(file).convert("RGB"), expected)
    assert image_size(file) == expected.size[::-1]


def test_a_picture_of_too_many_pixels_is_named(tmp_path: Path) -> None:
    """With the setting that allows it; Pillow's own limit, which calls it an attack, does not come before."""
    file = tmp_path / "map.png"
    Image.new("1", (15000, 13000)).save(file)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(
        DataError,
        match=r"map.png: is 13000 x 15000 .*, 195 megapixels, expected at most 179; .*max_photo_pixels=195000000",
    ):
        open_image(file)
    assert open_image(file, 195_000_000).size == (15000, 13000)
    assert before == Image.MAX_IMAGE_PIXELS
