"""Read and write videos frame by frame with PyAV, an optional dependency imported only when there is a video."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

RATE = Fraction(25)  # frames per second of a video that states none


def pyav() -> ModuleType:
    """Import PyAV. Raises ValueError if it is not installed."""
    try:
        import av
    except ImportError:
        raise ValueError("videos need PyAV, which is not installed: pip install '.[video]'") from None
    return av


def num_frames(file: Path) -> int:
    """Return the number of frames that a video states; 1 if it states none or cannot be read."""
    av = pyav()
    try:
        with av.open(str(file)) as container:
            return container.streams.video[0].frames or 1
    except (av.FFmpegError, IndexError):
        return 1


def frames(file: Path) -> Iterator[Tensor]:
    """Yield every frame (3, H, W) uint8 RGB, upright.

    Raises ValueError for a broken or empty file, after its readable frames.
    """
    av, number = pyav(), 0
    try:
        with av.open(str(file)) as container:
            for frame in container.decode(video=0) if container.streams.video else ():
                pixels = upright(frame.to_ndarray(format="rgb24"), display_matrix(frame))
                yield torch.from_numpy(pixels).permute(2, 0, 1)
                number += 1
    except av.FFmpegError as error:
        raise ValueError(f"{file}: cannot be decoded after {number} frames ({error.strerror})") from error
    if not number:
        raise ValueError(f"{file}: a video without a frame")


def display_matrix(frame: Any) -> np.ndarray | None:
    """Return the container's display matrix [[a, b], [c, d]] of x' = a x + c y, y' = b x + d y; None if it has none."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]
    return None


def upright(pixels: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Rotate and mirror a frame (h, w, 3) by its display matrix, to the nearest right angle."""
    if matrix is None:
        return pixels
    (a, b), (c, d) = matrix
    if abs(int(b)) > abs(int(a)):  # columns become rows
        pixels, across, down = pixels.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def rate(file: Path) -> Fraction:
    """Return frames per second."""
    with pyav().open(str(file)) as container:
        return container.streams.video[0].average_rate or RATE


class Recorder:
    """Writes images of one size as an MP4 file; `rate` is in frames per second."""

    def __init__(self, file: Path, size: tuple[int, int], rate: Fraction):
        width, height = (max(side // 2 * 2, 2) for side in size)  # H.264 needs even sides
        self.size = (width, height)
        self.container = pyav().open(str(file), "w")
        self.stream = self.container.add_stream("h264", rate=rate)
        self.stream.width, self.stream.height = self.size
        self.stream.pix_fmt = "yuv420p"

    def write(self, picture: Image.Image) -> None:
        """Add one frame."""
        frame = pyav().VideoFrame.from_ndarray(np.asarray(picture.resize(self.size)), format="rgb24")
        self.container.mux(self.stream.encode(frame))

    def close(self) -> None:
        """Finish the file; without its trailer it cannot be played."""
        self.container.mux(self.stream.encode())
        self.container.close()
