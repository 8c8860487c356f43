"""Scenes of coloured shapes on sky, grass and water, drawn on demand: nothing to download, quick to learn.

A scene is a pure function of (seed, index).
"""

import colorsys
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw

from src.data.scenes import Scenes
from src.data.targets import Category, Sample, Truth

STUFF = ("sky", "grass", "water")
THINGS = ("circle", "square", "triangle", "star", "ring")
COLORS = ((150, 200, 240), (110, 160, 70), (40, 100, 150), (225, 70, 60), (240, 180, 50), (150, 80, 190),
          (250, 130, 190), (240, 240, 230))  # fmt: skip

# Ranges of the number of things, of their diameter as a share of the side, of the number of grounds; and the noise.
LEVELS: dict[str, tuple[tuple[int, int], tuple[float, float], tuple[int, int], float]] = {
    "easy": ((1, 2), (0.32, 0.50), (1, 1), 2.0),
    "medium": ((3, 5), (0.20, 0.36), (2, 2), 5.0),
    "cluttered": ((8, 12), (0.13, 0.24), (2, 3), 12.0),
}
CROWD = "circle"  # the class of crowds
SPOKES = {"square": [1.0] * 4, "triangle": [1.0] * 3, "star": [1.0, 0.45] * 5}  # corners' distances from the centre
SMALLEST = 10  # pixels of a segment; smaller ones are void
SUPERSAMPLE = 4


class Shapes(Scenes):
    """Square scenes; `shares` of them have each level, and shares `void` and `crowd` of them a void patch and a crowd.

    Shares hold for any run of consecutive scenes, up to rounding. Another seed gives other scenes.
    """

    def __init__(
        self,
        num_scenes: int,
        size: int = 96,
        seed: int = 0,
        shares: Mapping[str, float] | None = None,  # by level; null: 0.4, 0.4, 0.2
        void: float = 0.2,
        crowd: float = 0.05,
    ) -> None:
        shares = dict(shares or {"easy": 0.4, "medium": 0.4, "cluttered": 0.2})
        if set(shares) - set(LEVELS) or min(shares.values()) < 0 or sum(shares.values()) <= 0:
            raise ValueError(f"shares are {shares}, expected levels among {', '.join(LEVELS)} with shares above 0")
        names = enumerate(STUFF + THINGS)
        self.categories = [Category(i + 1, name, name in THINGS, COLORS[i]) for i, name in names]
        self.num_scenes, self.size, self.seed, self.void, self.crowd = num_scenes, size, seed, void, crowd
        self.levels = tuple(shares)
        self.bounds = np.cumsum(list(shares.values())) / sum(shares.values())

    def __len__(self) -> int:
        return self.num_scenes

    def level(self, index: int) -> str:
        """The level of a scene."""
        return self.levels[int(np.searchsorted(self.bounds[:-1], spread(index, 0.618034), side="right"))]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.num_scenes:
            raise IndexError(f"scene {index} of {self.num_scenes}")
        canvas = Canvas(self.size, np.random.default_rng((self.seed, index)))
        (fewest, most), diameters, (few_grounds, most_grounds), noise = LEVELS[self.level(index)]
        canvas.grounds(int(canvas.rng.integers(few_grounds, most_grounds + 1)), noise)
        if spread(index, 0.414214) < self.void:
            canvas.hole()
        if spread(index, 0.732051) < self.crowd:
            canvas.crowd()
        for _ in range(canvas.rng.integers(fewest, most + 1)):
            canvas.thing(self.size * canvas.rng.uniform(*diameters))
        image = torch.from_numpy(canvas.image.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)
        return Sample(image, canvas.truth(), index, f"shapes seed {self.seed} scene {index:06d} {self.level(index)}")


class Canvas:
    """An image and the map of its segments, painted from back to front."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng
        self.image = np.zeros((size, size, 3), np.float32)
        self.map = np.zeros((size, size), np.int32)
        self.num_grounds = 0
        self.names: list[str] = []
        self.crowds: list[bool] = []

    def segment(self, name: str, is_crowd: bool = False) -> int:
        """Add a segment and return its number."""
        self.names.append(name)
        self.crowds.append(is_crowd)
        return len(self.names)

    def grounds(self, count: int, noise: float) -> None:
        """Paint stuff in bands with wavy, slanted borders; noise is the standard deviation of the grain."""
        self.num_grounds = count
        y, x = np.mgrid[: self.size, : self.size].astype(np.float32) / self.size
        borders = (np.arange(count) + self.rng.uniform(-0.2, 0.2, count)) / count
        for border, name in zip(borders, self.rng.permutation(STUFF)[:count], strict=True):
            wave = self.rng.uniform(-0.2, 0.2) * (x - 0.5) + 0.03 * np.sin(x * self.rng.uniform(6, 14))
            below = (y >= border + wave) | (not self.names)  # the first band fills the image
            np.copyto(self.image, self.texture(name, x, y), where=below[..., None])
            self.map[below] = self.segment(name)
        self.image += noise * self.rng.standard_normal((self.size, self.size, 1), np.float32)

    def texture(self, name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return a ground in its colours and grain: sky fades and has clouds, grass has blades, water has ripples."""
        phase, light = self.rng.uniform(0, 6, 2).tolist(), self.rng.uniform(-18, 18)
        color = np.array(COLORS[STUFF.index(name)], np.float32) + light
        if name == "sky":
            clouds = np.sin(7 * x + phase[0]) + np.sin(9 * y + 3 * x + phase[1])
            grain = 45 * (y - 0.5) + 25 * (clouds > 1.2)
        elif name == "grass":
            grain = 13 * self.rng.standard_normal(x.shape, np.float32)
            grain = grain + np.roll(grain, 1, 0) + np.roll(grain, 2, 0)
        else:
            grain = 20 * np.sin(70 * y + 2.5 * np.sin(9 * x + phase[0]) + phase[1])
        return color + grain[..., None]

    def hole(self) -> None:
        """Paint a void patch of grey noise."""
        top, left = self.rng.integers(0, self.size * 3 // 4, 2)
        height, width = self.rng.integers(self.size // 8, self.size // 3, 2)
        patch = np.s_[top : top + height, left : left + width]
        self.image[patch] = 120 + self.rng.normal(0, 40, (*self.map[patch].shape, 1))
        self.map[patch] = 0

    def crowd(self) -> None:
        """Paint a heap of small shapes that are one crowd segment."""
        number, color = self.segment(CROWD, True), self.color(CROWD)
        center = self.rng.uniform(0.25, 0.75, 2) * self.size
        for place in self.rng.normal(center, self.size / 12, (25, 2)):
            self.stamp(CROWD, self.size / 14, place, color * self.rng.uniform(0.8, 1.1), 0, number)

    def thing(self, diameter: float) -> None:
        """Paint one shape, nearly all of it inside the image, over what is there."""
        name = THINGS[self.rng.integers(len(THINGS))]
        places = self.rng.uniform(diameter * 0.4, self.size - diameter * 0.4, (2, 2))
        place = min(places, key=lambda place: self.hidden(place, diameter))  # things overlap, but few are buried
        angle = self.rng.uniform(-0.3, 0.3) if name == "square" else self.rng.uniform(-0.5, 0.5)
        self.stamp(name, diameter, place, self.color(name), angle, self.segment(name))

    def hidden(self, place: np.ndarray, diameter: float) -> int:
        """Return roughly how many pixels of things a shape at that place would hide."""
        top, left = (place - diameter / 2).clip(0).astype(int)
        bottom, right = (place + diameter / 2).astype(int)
        return int((self.map[top:bottom, left:right] > self.num_grounds).sum())

    def color(self, name: str) -> np.ndarray:
        """Return a colour near that of the class, or sometimes any hue: the shape tells the class, colour is a hint."""
        hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in COLORS[len(STUFF) + THINGS.index(name)]))
        if self.rng.random() < 0.2:
            hue, saturation = self.rng.random(), 0.7
        hue += self.rng.normal(0, 0.03)
        return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value * self.rng.uniform(0.8, 1.0))) * 255

    def stamp(
        self, name: str, diameter: float, place: np.ndarray, color: np.ndarray, angle: float, number: int
    ) -> None:
        """Paint a shape with a dark rim, clipped to the image; pixels covered by half or more belong to it."""
        side = int(diameter * 1.2) + 3
        top, left = (place - side / 2).round().astype(int)
        ys, xs = (slice(max(start, 0), max(start + side, 0)) for start in (top, left))
        inside = np.s_[max(-top, 0) : self.size - top, max(-left, 0) : self.size - left]
        whole, core = (outline(name, side, diameter * part, angle)[inside] for part in (1.0, 0.8))
        color = (color * (0.45 + 0.55 * core[..., None])).astype(np.float32)
        self.image[ys, xs] += (color - self.image[ys, xs]) * whole[..., None]
        self.map[ys, xs][whole >= 0.5] = number

    def truth(self) -> Truth:
        """Return the segments that are still visible."""
        areas = np.bincount(self.map.ravel(), minlength=len(self.names) + 1)[1:]
        truth = Truth(
            torch.from_numpy(self.map[None]),
            torch.tensor([(STUFF + THINGS).index(name) for name in self.names]),
            torch.tensor(self.crowds),
            torch.from_numpy(areas.astype(np.float32)),
        )
        return truth.select(truth.areas >= SMALLEST)


def outline(name: str, side: int, diameter: float, angle: float) -> np.ndarray:
    """Return the share of each pixel of a patch that a shape covers: (side, side) float32."""
    picture = Image.new("L", (side * SUPERSAMPLE, side * SUPERSAMPLE))
    draw, center, radius = ImageDraw.Draw(picture), side * SUPERSAMPLE / 2, diameter * SUPERSAMPLE / 2
    if name in ("circle", "ring"):
        draw.circle((center, center), radius, fill=255)
        if name == "ring":
            draw.circle((center, center), radius * 0.5, fill=0)
    else:
        spokes = radius * 1.15 * np.array(SPOKES[name])
        angles = 2 * np.pi * np.arange(len(spokes)) / len(spokes) + angle + (np.pi / 4 if name == "square" else 0)
        points = np.stack([center + spokes * np.sin(angles), center - spokes * np.cos(angles)], 1)
        draw.polygon(points.ravel().tolist(), fill=255)
    return np.asarray(picture.reduce(SUPERSAMPLE), np.float32) / 255


def spread(index: int, step: float) -> float:
    """Return a number in [0, 1); those of consecutive indices fill the interval evenly (Weyl's sequence)."""
    return index * step % 1
