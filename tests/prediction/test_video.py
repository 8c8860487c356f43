"""Frames of a video, the right way up."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

from src.prediction.video import Recorder, frames

ONE = 1 << 16
TURNS = {  # a, b, c, d of the track's matrix, and what a player makes of a frame (h, w, 3)
    "none": ((ONE, 0, 0, ONE), lambda frame: frame),
    "quarter": ((0, ONE, -ONE, 0), lambda frame: np.rot90(frame, -1)),
    "half": ((-ONE, 0, 0, -ONE), lambda frame: np.rot90(frame, 2)),
    "three quarters": ((0, -ONE, ONE, 0), lambda frame: np.rot90(frame, 1)),
    "mirrored": ((-ONE, 0, 0, ONE), lambda frame: frame[:, ::-1]),
}


def clip(file: Path) -> Path:
    """A short video, its four corners of different colours."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32], pixels[:24, 32:], pixels[24:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    recorder = Recorder(file, (64, 48), Fraction(5))
    for _ in range(3):
        recorder.write(Image.fromarray(pixels))
    recorder.close()
    return file


@pytest.mark.parametrize("turn", TURNS)
def test_a_clip_is_turned_as_a_player_turns_it(tmp_path: Path, turn: str) -> None:
    """By the matrix of its track, where phones write how they were held."""
    plain = clip(tmp_path / "plain.mp4")
    (a, b, c, d), turned = TURNS[turn]
    content = bytearray(plain.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # version, times, id, duration, layer, group and volume come before
    assert struct.unpack(">9i", content[start : start + 36])[:5] == (ONE, 0, 0, 0, ONE)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    held = tmp_path / "held.mp4"
    held.write_bytes(content)
    for one, other in zip(frames(held), frames(plain), strict=True):
        expected = np.ascontiguousarray(turned(other.permute(1, 2, 0).numpy()))
        assert np.array_equal(one.permute(1, 2, 0).numpy(), expected)
