"""Segments photos with an exported model. Needs numpy, Pillow and onnxruntime, neither torch nor the training code.

python runtime.py photo.jpg photos/                          every photo as the manifest says: its gate, or its exit
python runtime.py photos/ --exit 2                           every photo at one exit
python runtime.py photos/ --budget-ms 40 [--per-image]       within a budget: on average, or never above
python runtime.py --measure                                  times every exit on this machine, for --budget-ms

    from runtime import Router
    answer = Router("FOLDER", budget_gflops=60)(["photo.jpg"])[0]  # answer.panoptic.ids (H, W), .exit, .gflops, .ms

An export is a folder with manifest.json, ONNX graphs and this file. Of a folder from elsewhere nothing is run but the
graphs, by onnxruntime, and no file outside it is read; a `runtime.py` inside is a program like any other.

Letters: B images, Q queries, K classes, E exits, P segments, M instances, h x w the mask logits, H x W a photo.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MAX_PHOTO_PIXELS = 178_956_970  # larger files are not read
MAX_PIXELS = 4_000_000  # of an answer's maps; those of larger photos are enlarged
BATCH = 4  # photos of one padded size that are run together
BAND = 2**22  # values of all queries or classes that post-processing holds at a time
SUFFIX = re.compile(r"\.(jpe?g|jfif|png|bmp|gif|tiff?|webp|jp2|avif|p[pgb]m)", re.IGNORECASE)
TURNS = dict(enumerate((0, 3, 1, 5, 4, 6, 2), 2))  # by EXIF's orientation, a value of Image.Transpose
Size = Sequence[int]  # (height, width)


# ---- the manifest

# What JSON must hold: a type; a tuple: one of these; a list: all entries; a dictionary: at least these, of `str`: all.
PRICE = {"beta": (None, float), "price": float, "shares": [float]}
SCHEMA: dict[Any, Any] = {
    "name": str,
    "form": ("split", "whole"),
    "segmentation": ("panoptic", "instance", "semantic"),
    "precision": str,
    "exits": [int],
    "default_exit": int,
    "graphs": [{"size": (None, [int]), "batch": (None, int)}],
    "files": {str: {"bytes": int, "sha256": str}},
    "classes": [{"id": int, "name": str, "isthing": bool, "color": [int]}],
    "mean": [float],
    "std": [float],
    "divisor": int,
    "resize": (None, {"short": int, "long": int}),
    "postprocess": {"object_threshold": float, "overlap_threshold": float, "num_instances": int, "resize_last": bool},
    "gate": (None, {"exits": [int], "beta": (None, float), "price": float, "prices": (None, [PRICE])}),
    "costs": [{"size": [int], "gflops": {str: float}}],
}
ROW = {"size": [int], "exit": int, "gflops": float, "ms": float}
TABLES = {"tables": [{"machine": str, "runtime": str, "precision": str, "measured": str, "rows": [ROW]}]}


def mismatch(value: Any, pattern: Any, where: str) -> str:
    """Return what is wrong with a value that JSON holds, "" if nothing is."""
    if isinstance(pattern, tuple):
        found = [mismatch(value, one, where) for one in pattern]
        return "" if "" in found else found[-1]
    if isinstance(pattern, dict) and isinstance(value, dict):
        pattern = dict.fromkeys(value, pattern[str]) if str in pattern else pattern
        return next(filter(None, (mismatch(value.get(key), one, f"{where}.{key}") for key, one in pattern.items())), "")
    if isinstance(pattern, list) and isinstance(value, list) and value:
        return next(filter(None, (mismatch(one, pattern[0], f"{where}[{i}]") for i, one in enumerate(value))), "")
    if pattern is float and type(value) in (int, float) and abs(value) < np.inf:
        return ""
    if type(value) is pattern or (value == pattern and (pattern is None or isinstance(pattern, str))):
        return ""
    kind = pattern if isinstance(pattern, type) else type(pattern)
    return f"{where} is {value!r:.60}, expected {pattern if isinstance(pattern, str) else kind.__name__}"


def read_json(file: Path) -> Any:
    """Return the content of a JSON file. Raises ValueError naming it."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error


def read_manifest(folder: Path, verify: bool = False) -> dict[str, Any]:
    """Return the manifest of an export whose models are all there, of the size it says, and inside the folder.

    Args:
        verify: compare the SHA-256 of every file too, those that are no models included.

    Raises ValueError naming what is wrong.
    """
    file = folder / "manifest.json"
    if not file.is_file():
        raise ValueError(f"{folder}: is no export, it has no manifest.json; python -m src.export writes one")
    manifest = read_json(file)
    if not isinstance(manifest, dict) or manifest.get("format") != "ecoscale export":
        raise ValueError(f"{file}: is no manifest of an export, its format is not 'ecoscale export'")
    if manifest.get("version") != 1:
        raise ValueError(f"{file}: version {manifest.get('version')!r}, this runtime.py reads version 1; export again")
    if wrong := mismatch(manifest, SCHEMA, "manifest") or contradiction(manifest):
        raise ValueError(f"{file}: {wrong}")
    for name in {*manifest["files"], *os.listdir(folder)}:  # a graph may name files that the manifest does not
        if Path(name).name != name or "\\" in name or (folder / name).resolve().parent != folder.resolve():
            raise ValueError(
                f"{file}: {name!r} is not in this folder itself; expected plain names, no links to elsewhere"
            )
    for name, stated in manifest["files"].items():
        if verify or not name.endswith((".md", ".py")):  # which may be edited
            check_file(folder / name, stated, verify)
    return manifest


def contradiction(manifest: dict[str, Any]) -> str:
    """Return which entries of a manifest do not fit each other, "" if all do."""
    exits, graphs, kind = manifest["exits"], manifest["graphs"], "tails" if manifest["form"] == "split" else "exits"
    leaving = (manifest["gate"] or {"exits": exits})["exits"]
    prices = (manifest["gate"] or {"prices": None})["prices"] or []
    sizes = [*(graph["size"] for graph in graphs if graph["size"]), *(cost["size"] for cost in manifest["costs"])]
    names = [name for graph in graphs for name in (graph.get(kind), graph.get("trunk")) if name]
    each = [*(graph.get(kind) for graph in graphs), *(cost["gflops"] for cost in manifest["costs"])]
    wrong = {
        "exits do not rise": exits != sorted(set(exits)),
        "default_exit or gate.exits are not among exits": not {manifest["default_exit"], *leaving} <= set(exits),
        "graphs or costs lack an exit": not all(
            isinstance(one, dict) and {*map(str, exits)} <= set(one) for one in each
        ),
        "a graph is not among files": not {*flat(names)} <= set(manifest["files"]),
        "a size is not two numbers above 0": not all(len(size) == 2 and min(size) > 0 for size in sizes),
        "mean and std are not three numbers each": {len(manifest["mean"]), len(manifest["std"])} != {3},
        "a colour is not three numbers in 0..255": not all(is_color(one["color"]) for one in manifest["classes"]),
        "shares of a price are not one for each exit": any(len(one["shares"]) != len(leaving) for one in prices),
        "divisor or batch is not above 0": min(manifest["divisor"], *(graph["batch"] or 1 for graph in graphs)) < 1,
    }
    return next((why for why, so in wrong.items() if so), "")


def flat(names: Sequence[Any]) -> Iterator[str]:
    """Yield names, and those in dictionaries."""
    for one in names:
        yield from map(str, one.values()) if isinstance(one, dict) else [str(one)]


def is_color(color: Sequence[int]) -> bool:
    return len(color) == 3 and all(0 <= channel <= 255 for channel in color)


def check_file(file: Path, stated: dict[str, Any], verify: bool) -> None:
    """Raise ValueError unless a file is there and as long as stated."""
    if not file.is_file():
        raise ValueError(f"{file}: is missing; export again, or copy the whole folder")
    if file.stat().st_size != stated["bytes"]:
        raise ValueError(f"{file}: has {file.stat().st_size} bytes, the manifest says {stated['bytes']}; copy it again")
    if verify:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != stated["sha256"]:
            raise ValueError(f"{file}: its SHA-256 is {found[:12]}, the manifest says {stated['sha256'][:12]}")


# ---- photos


def read_photo(photo: Any) -> np.ndarray:
    """Return a path, a Pillow image or a uint8 array (H, W, 3) or (H, W) as (H, W, 3) uint8 RGB, upright.

    Raises FileNotFoundError or ValueError naming the photo.
    """
    if isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.shape[2:] in ((), (3,)) and photo.size:
        return to_rgb(Image.fromarray(photo))
    if isinstance(photo, Image.Image):
        return to_rgb(photo)
    if not isinstance(photo, str | Path):
        raise ValueError(
            f"photo: is {type(photo).__name__}, expected a path, a Pillow image or a uint8 array (H, W, 3)"
        )
    if not Path(photo).exists():
        raise FileNotFoundError(f"{photo}: no such image file")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # Pillow's own limit warns of some, refuses others
    try:
        with Image.open(photo) as image:
            if image.width * image.height > MAX_PHOTO_PIXELS:
                raise ValueError(f"{image.height} x {image.width} pixels, expected at most {MAX_PHOTO_PIXELS}")
            image.load()
            turn = TURNS.get(orientation(image))
        return to_rgb(image if turn is None else image.transpose(Image.Transpose(turn)))
    except Exception as error:  # Pillow's parsers raise errors of any type
        raise ValueError(f"{photo}: cannot be decoded ({error})") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 (upright) if there is none or the tags are broken."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:
        return 1


def to_rgb(image: Image.Image) -> np.ndarray:
    """Return a Pillow image as (H, W, 3) uint8 RGB; of 16 bits the upper 8."""
    if image.mode.startswith("I"):  # Pillow would clip
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels, expected 8 or 16 bits")
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def scaled(size: Size, scale: float, long: float = np.inf) -> tuple[int, int]:
    """Return a size times `scale`, with no side above `long`, rounded as detectron2 rounds."""
    if max(size) * scale > long:
        scale = long / max(size)
    return max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1)


def resize_photo(photo: np.ndarray, size: Size) -> np.ndarray:
    """Return a photo (H, W, 3) uint8 at another size, bilinear with antialiasing."""
    if photo.shape[:2] == tuple(size):
        return photo
    return np.array(Image.fromarray(photo).resize((size[1], size[0]), Image.Resampling.BILINEAR))


# ---- from logits to segments


class Panoptic(NamedTuple):
    """Segments that do not overlap."""

    ids: np.ndarray  # (H, W) int32; 0: no segment, n: the n-th
    labels: np.ndarray  # (P,) class index
    scores: np.ndarray  # (P,)


class Instances(NamedTuple):
    """Scored masks, which may overlap; the best score first."""

    scores: np.ndarray  # (M,)
    labels: np.ndarray  # (M,) class index
    masks: np.ndarray  # (M, H, W) bool


class Frame(NamedTuple):
    """Sizes of an image: padded, as it entered the network, and that of the answer's maps."""

    padded: Size
    resized: Size
    original: Size


class Answer(NamedTuple):
    """What is found in one photo; a kind that the model does not predict is None."""

    panoptic: Panoptic | None
    instances: Instances | None
    semantic: np.ndarray | None  # (H, W) class index
    exit: int  # number of encoder layers
    gflops: float  # multiply-adds x 1e-9
    ms: float  # of the graphs, its share if several photos ran together
    size: tuple[int, int]  # of the photo; maps are smaller for photos above MAX_PIXELS

    def whole(self) -> "Answer":
        """Return the answer with maps of the photo's size."""
        panoptic, instances, semantic = self.panoptic, self.instances, self.semantic
        return self._replace(
            panoptic=panoptic and panoptic._replace(ids=enlarge(panoptic.ids, self.size)),
            instances=instances and instances._replace(masks=enlarge(instances.masks, self.size)),
            semantic=None if semantic is None else enlarge(semantic, self.size),
        )


def nearest(old: int, new: int) -> np.ndarray:
    """Return which of `old` pixels is under the centre of each of `new`, (new,)."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


def enlarge(maps: np.ndarray, size: Size) -> np.ndarray:
    """Return maps (..., h, w) at (..., H, W) by nearest neighbour."""
    if maps.shape[-2:] == tuple(size):
        return maps
    return maps.take(nearest(maps.shape[-2], size[0]), -2).take(nearest(maps.shape[-1], size[1]), -1)


def linear(rows: np.ndarray, new: int) -> np.ndarray:
    """Return rows (old, n) at `new` places, bilinear without antialiasing, as torch's interpolate: (new, n) float32."""
    old = len(rows)
    if old == new:
        return rows
    places = np.maximum(np.float32(old / new) * (np.arange(new, dtype=np.float32) + 0.5) - np.float32(0.5), 0)
    first = np.minimum(places.astype(np.int64), old - 1)
    share = (places - first)[:, None].astype(np.float32)
    return (1 - share) * rows[first] + share * rows[np.minimum(first + 1, old - 1)]


@lru_cache(64)
def undoing(side: int, padded: int, resized: int, original: int) -> np.ndarray:
    """Return the matrix (original, side) that resizes an axis to `padded`, cuts it to `resized`, resizes to `original`.

    A row has at most four entries that are not 0: products with it are exact but for the rounding of these.
    """
    return linear(linear(np.eye(side, dtype=np.float32), padded)[:resized], original)


def bands(masks: np.ndarray, frame: Frame, depth: int = 1) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of the original image and the masks' (Q, h, w) logits there, (Q, rows, W), a few rows at a time.

    Args:
        depth: of what else is held for each pixel; as many rows are taken as memory allows.
    """
    down, across = (undoing(*sides) for sides in zip(masks.shape[1:], *frame, strict=True))
    height, width = frame.original
    step = max(BAND // (max(len(masks), depth, 1) * width), 1)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        used = np.flatnonzero(down[rows].any(0))
        some = slice(used[0], used[-1] + 1)
        yield rows, down[rows, some] @ (masks[:, some] @ across.T)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)), float32."""
    with np.errstate(over="ignore"):
        made = np.exp(-x)
    made += 1
    return np.reciprocal(made, out=made)


def softmax(x: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis, float32."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


class Postprocess:
    """Logits of one image to the answers of a kind of segmentation, a band of rows at a time."""

    def __init__(self, manifest: dict[str, Any]):
        self.kind, self.settings = manifest["segmentation"], manifest["postprocess"]
        self.isthing = np.array([one["isthing"] for one in manifest["classes"]])

    def __call__(self, class_logits: np.ndarray, mask_logits: np.ndarray, frame: Frame) -> dict[str, Any]:
        """Return panoptic, instances and semantic from (Q, K + 1) and (Q, h, w); maps are of the original size."""
        scores, masks = softmax(class_logits.astype(np.float32)), mask_logits.astype(np.float32)
        if self.kind == "semantic" and self.settings["resize_last"] and tuple(frame.resized) != tuple(frame.original):
            return {"panoptic": None, "instances": None, "semantic": resize_last(scores[:, :-1], masks, frame)}
        owner = Owners(scores, self.settings, frame.original) if self.kind == "panoptic" else None
        best = Best(scores, self.settings, self.isthing, frame.original) if self.kind != "semantic" else None
        semantic = None if self.kind == "instance" else np.empty(frame.original, np.int64)
        needed = np.arange(len(masks)) if best is None or semantic is not None else best.unique
        for rows, logits in bands(masks[needed], frame, scores.shape[1]):
            probability = sigmoid(logits)
            if owner is not None:
                owner.see(rows, probability)
            if best is not None:
                best.see(rows, logits, probability, needed)
            if semantic is not None:
                semantic[rows] = strongest(scores[:, :-1], probability)
        return {
            "panoptic": owner and owner.panoptic(self.settings["overlap_threshold"], self.isthing),
            "instances": best and best.instances(),
            "semantic": semantic,
        }


def strongest(scores: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the class (rows, W) whose sum over queries of score (Q, K) x probability (Q, rows, W) is largest."""
    sums = probability.reshape(len(scores), -1).T @ scores
    return sums.argmax(1).reshape(probability.shape[1:])


def resize_last(scores: np.ndarray, masks: np.ndarray, frame: Frame) -> np.ndarray:
    """Return as `strongest` (H, W), where the sums, of the image as it entered the network, are resized."""
    winner = np.empty(frame.original, np.int64)
    down, across = (undoing(*sides) for sides in zip(frame.resized, frame.resized, *frame[1:], strict=True))
    before = [undoing(*sides) for sides in zip(masks.shape[1:], *frame[:2], frame.resized, strict=True)]
    step = max(BAND // (scores.shape[0] + scores.shape[1]) // max(frame.resized[1], frame.original[1]), 1)
    for top in range(0, frame.original[0], step):
        rows = slice(top, top + step)
        used = np.flatnonzero(down[rows].any(0))
        some = slice(used[0], used[-1] + 1)
        probability = sigmoid(before[0][some] @ (masks @ before[1].T))
        sums = scores.T @ probability.reshape(len(scores), -1)
        resized = down[rows, some] @ (sums.reshape(-1, *probability.shape[1:]) @ across.T)  # (K, rows, W)
        winner[rows] = resized.argmax(0)
    return winner


class Owners:
    """Panoptic segments: each pixel to the query of highest score x probability among those that are sure enough."""

    def __init__(self, scores: np.ndarray, settings: dict[str, Any], size: Size):
        best, labels = scores.max(1), scores.argmax(1)
        self.kept = np.flatnonzero((labels != scores.shape[1] - 1) & (best > np.float32(settings["object_threshold"])))
        self.scores, self.labels = best[self.kept], labels[self.kept]
        self.codes = np.zeros(size, np.int32)  # 2 q + 1 where the probability of the pixel's query q is >= 0.5, or 2 q
        self.full = np.zeros(len(self.kept), np.int64)  # pixels of each query's own mask

    def see(self, rows: slice, probability: np.ndarray) -> None:
        """Take the probabilities (Q, rows, W) of some rows."""
        best = np.full(probability.shape[1:], -np.inf, np.float32)
        for number, (query, score) in enumerate(zip(self.kept, self.scores, strict=True)):
            inside = probability[query] >= 0.5
            self.full[number] += np.count_nonzero(inside)
            value = probability[query] * score
            np.copyto(self.codes[rows], 2 * number + inside, where=value > best)
            np.maximum(best, value, out=best)

    def panoptic(self, overlap: float, isthing: np.ndarray) -> Panoptic:
        """Return the segments that won enough of their masks; those of one stuff class are one."""
        if not len(self.kept):
            return Panoptic(self.codes, self.labels, self.scores)
        outside, final = np.bincount(self.codes.ravel(), minlength=2 * len(self.kept)).reshape(-1, 2).T
        share = (outside + final).astype(np.float32) / np.maximum(self.full, 1).astype(np.float32)
        table = np.zeros(2 * len(self.kept), np.int32)  # number of the segment, by code
        segments: list[int] = []  # the query of each
        stuff: dict[int, int] = {}  # number of the segment of a stuff class
        for query in np.flatnonzero((final > 0) & (share >= np.float32(overlap))).tolist():
            label = int(self.labels[query])
            if label not in stuff:
                segments.append(query)
                if not isthing[label]:
                    stuff[label] = len(segments)
            table[2 * query + 1] = stuff.get(label, len(segments))
        return Panoptic(table[self.codes], self.labels[segments], self.scores[segments])


class Best:
    """Instances: the best pairs of query and class, things only, scored by class score x mean probability inside."""

    def __init__(self, scores: np.ndarray, settings: dict[str, Any], isthing: np.ndarray, size: Size):
        pairs = np.argsort(-scores[:, :-1].ravel(), kind="stable")[: settings["num_instances"]]
        queries, labels = np.divmod(pairs, len(isthing))
        queries, self.labels = queries[isthing[labels]], labels[isthing[labels]]
        self.scores = scores[queries, self.labels]
        self.unique, self.inverse = np.unique(queries, return_inverse=True)
        self.masks = np.empty((len(self.unique), *size), bool)
        self.sums, self.counts = np.zeros((2, len(self.unique)))

    def see(self, rows: slice, logits: np.ndarray, probability: np.ndarray, queries: np.ndarray) -> None:
        """Take logits and probabilities (N, rows, W) of some rows, of these queries (N,)."""
        for number, place in enumerate(np.searchsorted(queries, self.unique)):
            inside = np.greater(logits[place], 0, out=self.masks[number, rows])
            self.sums[number] += probability[place].sum(where=inside)
            self.counts[number] += np.count_nonzero(inside)

    def instances(self) -> Instances:
        """Return the masks and their scores, the best first."""
        scores = self.scores * (self.sums / (self.counts + 1e-6))[self.inverse].astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        return Instances(scores[order], self.labels[order], self.masks[self.inverse[order]])


# ---- which exit


def along(x: float, points: Sequence[tuple[float, float]]) -> float:
    """Return y at x: linear between the points, proportional to x beyond them."""
    (low, first), *_, (high, last) = points = sorted([*points, *points])
    if x < low or x > high:
        return first * x / low if x < low else last * x / max(high, 1e-12)
    return float(np.interp(x, [one for one, _ in points], [one for _, one in points]))


def this_machine(threads: int) -> str:
    """Return the class of this machine: architecture, CPU and threads."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    return f"{platform.machine()}, {cpu}, {threads} thread{'s' * (threads > 1)}"


def read_tables(file: Path) -> list[dict[str, Any]]:
    """Return the tables of a latency.json, none if there is no such file. Raises ValueError for any other content."""
    content = read_json(file) if file.exists() else {"tables": []}
    if file.exists() and (wrong := mismatch(content, TABLES, "latency")):
        raise ValueError(f"{file}: {wrong}; remove it and measure again")
    return content["tables"]


class Costs:
    """What an image costs at every exit: GFLOPs from the manifest, milliseconds from latency.json."""

    def __init__(self, folder: Path, manifest: dict[str, Any], threads: int):
        self.file, self.manifest, self.machine = folder / "latency.json", manifest, this_machine(threads)
        self.table: dict[str, Any] = {}

    def gflops(self, size: Size) -> dict[int, float]:
        """Return the GFLOPs by exit of an image of a padded size."""
        costs = [(prod(one["size"]), one["gflops"]) for one in self.manifest["costs"]]
        exits = self.manifest["exits"]
        return {depth: along(prod(size), [(pixels, of[str(depth)]) for pixels, of in costs]) for depth in exits}

    def ms(self, size: Size) -> dict[int, float]:
        """Return the milliseconds by exit of an image of a padded size, once `look_up` has found a table."""
        points: dict[int, list[tuple[float, float]]] = {}
        for row in self.table["rows"]:
            points.setdefault(row["exit"], []).append((row["gflops"], row["ms"]))
        return {depth: along(cost, points[depth]) for depth, cost in self.gflops(size).items()}

    def look_up(self) -> None:
        """Take the newest times of a machine like this one. Raises ValueError if it has none for all exits."""
        tables = read_tables(self.file)
        key = (self.machine, "onnxruntime", self.manifest["precision"])
        same = [one for one in tables if (one["machine"], one["runtime"].split()[0], one["precision"]) == key]
        same = [one for one in same if {*self.manifest["exits"]} <= {row["exit"] for row in one["rows"]}]
        if not same:
            others = "; ".join(f"{one['machine']}, {one['runtime']}, {one['precision']}" for one in tables) or "nothing"
            raise ValueError(
                f"budget_ms: {self.file} has no times of {', '.join(key)}, it has {others}; measure them with --measure"
            )
        self.table = max(same, key=lambda one: one["measured"])


class Choice:
    """The exit of each image: a fixed one, the deepest within a budget, or that of the gate.

    A gate takes the exit of the greatest score - price x exit. A budget sets the price at which the images that the
    gate was tried on cost no more in the mean; with `per_image` it leaves out the exits that cost an image more.
    Raises ValueError naming the setting that is wrong.
    """

    def __init__(
        self,
        costs: Costs,
        exit: int | None = None,
        beta: float | None = None,
        budget_gflops: float | None = None,
        budget_ms: float | None = None,
        per_image: bool = False,
    ):
        self.gate, self.exits, self.per_image = costs.manifest["gate"], costs.manifest["exits"], per_image
        settings = {"exit": exit, "beta": beta, "budget_gflops": budget_gflops, "budget_ms": budget_ms}
        given = {name: value for name, value in settings.items() if value is not None}
        if len(given) - ("beta" in given and per_image) > 1:
            raise ValueError(f"{' and '.join(given)}: each chooses exits; expected one of them")
        if exit not in (None, *self.exits):
            raise ValueError(f"exit={exit}: the export has the exits {self.exits}; expected one of them")
        self.name = next((name for name in given if name.startswith("budget_")), "")
        self.budget = given.get(self.name, np.inf)
        if (per_image and not self.name) or not self.budget > 0:
            raise ValueError("per_image without a budget, or a budget that is not above 0; expected one above 0")
        if self.gate is None and beta is not None:
            raise ValueError(f"beta={beta:g}: the export has no gate, which alone knows it; expected exit or a budget")
        if budget_ms is not None:
            costs.look_up()
        self.costs = costs.gflops if budget_ms is None else costs.ms
        self.fixed = exit if self.gate or given else costs.manifest["default_exit"]
        self.price = self.of_beta(beta) if self.gate else 0.0

    def of_beta(self, beta: float | None) -> float:
        """Return the price of a layer for a beta, linear between those of the manifest; None: as the gate was set."""
        if beta is None or beta == self.gate["beta"]:
            return self.gate["price"]
        known = sorted((one["beta"], one["price"]) for one in self.prices() if one["beta"] is not None)
        if not known:
            raise ValueError(f"beta={beta:g}: the manifest has no prices of betas; expected none")
        return float(np.interp(beta, [one for one, _ in known], [one for _, one in known]))

    def of_budget(self, costs: dict[int, float]) -> float:
        """Return the smallest price at which the mean cost, from the costs by exit, is within the budget."""
        prices = [(one["price"], float(np.dot(one["shares"], [*costs.values()]))) for one in self.prices()]
        fitting = [price for price, mean in prices if mean <= self.budget * (1 + 1e-9)]
        if not fitting:
            raise ValueError(f"{self.name}={self.budget:g}: the gate costs {min(m for _, m in prices):.6g} at least")
        return fitting[0]

    def prices(self) -> list[dict[str, Any]]:
        """Return the gate's prices, rising. Raises ValueError if its training fixed the choice."""
        if not self.gate["prices"]:
            raise ValueError("beta or a mean budget: this gate's choice is fixed by its training; expected neither")
        return sorted(self.gate["prices"], key=lambda one: one["price"])

    def __call__(self, size: Size, scores: np.ndarray | None) -> int:
        """Return the exit of an image of a padded size, with the gate's scores (E,). Raises ValueError if none fits."""
        if self.fixed is not None:
            return self.fixed
        costs = {depth: self.costs(size)[depth] for depth in (self.gate or {"exits": self.exits})["exits"]}
        within = [depth for depth, cost in costs.items() if cost <= self.budget]
        if not within:
            raise ValueError(
                f"{self.name}={self.budget:g}: an image of {size[0]}x{size[1]} costs {min(costs.values()):.6g} at the "
                "cheapest exit; expected that or more"
            )
        if self.gate is None or scores is None:
            return within[-1]
        price = self.of_budget(costs) if self.name and not self.per_image else self.price
        open_to = within if self.per_image else list(costs)
        worth = {depth: float(score) - price * depth for depth, score in zip(costs, scores, strict=True)}
        return max(open_to, key=lambda depth: (worth[depth], -depth))


# ---- the network


def onnxruntime() -> Any:
    """Return the package. Raises ValueError if it cannot be loaded."""
    try:
        import onnxruntime
    except Exception as error:  # an ImportError, or whatever its libraries raise
        raise ValueError(f"onnxruntime: cannot be loaded ({error}); pip install onnxruntime") from error
    return onnxruntime


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class Left(NamedTuple):
    """An image that left the network."""

    exit: int
    class_logits: np.ndarray  # (Q, K + 1)
    mask_logits: np.ndarray  # (Q, h, w)
    ms: float


class Router:
    """Segments photos, each at the exit that is chosen for it. Raises ValueError naming what is wrong.

    Args:
        folder: an export.
        exit, beta, budget_gflops, budget_ms, per_image: as `Choice`; none: the gate as it was set, or the default exit.
        threads: of onnxruntime; None: one for each CPU.
        verify: compare the SHA-256 of all files with the manifest's.
    """

    def __init__(
        self,
        folder: str | Path,
        exit: int | None = None,
        beta: float | None = None,
        budget_gflops: float | None = None,
        budget_ms: float | None = None,
        per_image: bool = False,
        threads: int | None = None,
        verify: bool = False,
    ):
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder, verify)
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = cpus if threads is None else max(threads, 1)
        self.costs = Costs(self.folder, self.manifest, self.threads)
        self.mean, self.std = (np.array(self.manifest[name], np.float32) for name in ("mean", "std"))
        self.postprocess = Postprocess(self.manifest)
        self.sessions: dict[str, Any] = {}
        self.choose_by(exit, beta, budget_gflops, budget_ms, per_image)

    def choose_by(self, *settings: Any, **named: Any) -> None:
        """Choose exits by other settings from now on, those of `Choice`."""
        self.choose = Choice(self.costs, *settings, **named)

    def __call__(self, photos: Sequence[Any]) -> list[Answer]:
        """Return the answer of each photo, with maps of its size.

        Args:
            photos: paths, Pillow images or uint8 arrays (H, W, 3), RGB.
        """
        return [answer.whole() for answer in self.answers([read_photo(photo) for photo in photos])]

    def answers(self, photos: Sequence[np.ndarray]) -> list[Answer]:
        """Return the answer of each photo (H, W, 3) uint8, with maps of at most MAX_PIXELS."""
        answers: dict[int, Answer] = {}
        fits = [self.fit(photo.shape[:2]) for photo in photos]
        for padded in dict.fromkeys(fit[1] for fit in fits):
            places = [place for place, fit in enumerate(fits) if fit[1] == padded]
            for group in (places[start : start + BATCH] for start in range(0, len(places), BATCH)):
                images = np.stack([self.prepared(photos[place], *fits[place][:2]) for place in group])
                for place, left in zip(group, self.forward(images, fits[group[0]][2], self.choose), strict=True):
                    size, gflops = photos[place].shape[:2], self.costs.gflops(padded)[left.exit]
                    frame = Frame(padded, fits[place][0], bounded(size))
                    found = self.postprocess(left.class_logits, left.mask_logits, frame)
                    answers[place] = Answer(**found, exit=left.exit, gflops=gflops, ms=left.ms, size=size)
        return [answers[place] for place in range(len(photos))]

    def fit(self, size: Size) -> tuple[Any, Any, dict[str, Any]]:
        """Return the size that a photo is resized to, its padded size, and the graphs that take it."""
        resize, divisor = self.manifest["resize"], self.manifest["divisor"]
        new = scaled(size, 1.0 if resize is None else resize["short"] / min(size), (resize or {"long": np.inf})["long"])
        graphs = sorted(self.manifest["graphs"], key=lambda graph: prod(graph["size"] or [0]))
        for graph in graphs:
            height, width = graph["size"] or (-(-side // divisor) * divisor for side in new)
            if new[0] <= height and new[1] <= width:
                return new, (height, width), graph
        new = scaled(size, min(height / size[0], width / size[1]))  # to fit the largest
        return (min(new[0], height), min(new[1], width)), (height, width), graph

    def prepared(self, photo: np.ndarray, resized: Size, padded: Size) -> np.ndarray:
        """Return a photo (H, W, 3) resized, normalised and padded with zeros, right and below: (3, h, w) float32."""
        image = np.zeros((3, *padded), np.float32)
        normal = (resize_photo(photo, resized) - self.mean) / self.std
        image[:, : resized[0], : resized[1]] = normal.transpose(2, 0, 1)
        return image

    def forward(self, images: np.ndarray, graph: dict[str, Any], choose: Callable[..., int]) -> list[Left]:
        """Return how each image (B, 3, H, W) leaves the graphs.

        Args:
            choose: padded size and scores (E,) or None of an image to its exit.
        """
        number, batch, size = len(images), graph["batch"], images.shape[-2:]
        state, tails, scores, shared = {"images": images}, graph.get("tails") or graph["exits"], None, 0.0
        if "tails" in graph:
            state, shared = self.run(graph["trunk"], state, batch)
            scores = state.get("scores")
        elif self.manifest["gate"] and getattr(choose, "fixed", None) is None:
            seen, shared = self.run(tails[str(self.manifest["exits"][0])], state, batch)
            scores = seen["scores"]
        exits = [choose(size, None if scores is None else scores[row]) for row in range(number)]
        made: dict[int, Left] = {}
        for depth in sorted(set(exits)):
            rows = [row for row in range(number) if exits[row] == depth]
            some = state if len(rows) == number else {name: value[rows] for name, value in state.items()}
            found, ms = self.run(tails[str(depth)], some, batch)
            logits = zip(found["class_logits"], found["mask_logits"], strict=True)
            made |= {
                row: Left(depth, *both, shared / number + ms / len(rows))
                for row, both in zip(rows, logits, strict=True)
            }
        return [made[row] for row in range(number)]

    def run(self, name: str, values: dict[str, np.ndarray], batch: int | None) -> tuple[dict[str, np.ndarray], float]:
        """Return the outputs of a graph by name, and the milliseconds that it took.

        A batch of a fixed size is filled up with copies of the last image.
        """
        if name not in self.sessions:
            self.sessions[name] = self.load(name)
        session, parts = self.sessions[name], []
        number, begin = len(next(iter(values.values()))), time.perf_counter()
        step = batch or number
        try:
            values = {one.name: values[one.name] for one in session.get_inputs()}
            for start in range(0, number, step):
                rows = np.minimum(np.arange(start, start + step), number - 1)
                some = values if step == number else {key: value[rows] for key, value in values.items()}
                parts.append([value[: number - start] for value in session.run(None, some)])
        except KeyError as error:
            raise ValueError(f"{self.folder / name}: wants {error}, which nothing gives it; export again") from error
        except Exception as error:  # onnxruntime's errors have no common class
            shapes = ", ".join(f"{key} {'x'.join(map(str, value.shape))}" for key, value in values.items())
            raise ValueError(f"{self.folder / name}: does not take {shapes} ({first_line(error)})") from error
        joined = (values[0] if len(values) == 1 else np.concatenate(values) for values in zip(*parts, strict=True))
        outputs = dict(zip((one.name for one in session.get_outputs()), joined, strict=True))
        return outputs, (time.perf_counter() - begin) * 1e3

    def load(self, name: str) -> Any:
        """Return the session of a graph. Raises ValueError if onnxruntime refuses it, as it lacks an operator say."""
        package = onnxruntime()
        options = package.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self.threads, 4
        try:
            return package.InferenceSession(str(self.folder / name), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            version = package.__version__
            raise ValueError(f"{self.folder / name}: onnxruntime {version} refuses it ({first_line(error)})") from error


def bounded(size: Size) -> tuple[int, int]:
    """Return a size reduced in proportion to at most MAX_PIXELS."""
    scale = min((MAX_PIXELS / prod(size)) ** 0.5, 1)
    return (max(int(size[0] * scale), 1), max(int(size[1] * scale), 1))


def measure(
    folder: str | Path, sizes: Sequence[Size] | None = None, rounds: int = 9, threads: int | None = None
) -> dict[str, Any]:
    """Time every exit of an export at several sizes, one image at a time, in turns: a table of latency.json.

    Args:
        sizes: padded sizes; None: those of the files, or of the manifest's costs if the files take any.
        rounds: timings of each exit and size, after one that warms up; the median and the quartiles are kept.
    """
    router = Router(folder, threads=threads)
    manifest = router.manifest
    graphs = {str(graph["size"] and list(graph["size"])): graph for graph in manifest["graphs"]}
    own = [graph["size"] for graph in manifest["graphs"] if graph["size"]] or [one["size"] for one in manifest["costs"]]
    ways = [(tuple(size), depth) for size in sizes or own for depth in manifest["exits"]]
    for size, _ in ways:
        if any(side < 1 or side % manifest["divisor"] for side in size) or not {str(list(size)), "None"} & set(graphs):
            expected = f"one of {own}" if "None" not in graphs else f"multiples of {manifest['divisor']}"
            raise ValueError(f"sizes: the files do not take {'x'.join(map(str, size))}; expected {expected}")
    times: dict[Any, list[float]] = {way: [] for way in ways}
    random = np.random.default_rng(0)
    for turn in range(rounds + 1):
        for size, depth in ways:
            graph = graphs.get(str(list(size))) or graphs["None"]
            image = random.standard_normal((1, 3, *size), np.float32)
            (left,) = router.forward(image, graph, lambda *_, depth=depth: depth)
            times[size, depth] += [left.ms] if turn else []
    rows = [{"size": list(size), "exit": depth, "gflops": router.costs.gflops(size)[depth]} for size, depth in ways]
    for row, found in zip(rows, times.values(), strict=True):
        low, middle, high = np.quantile(found, (0.25, 0.5, 0.75)).round(4).tolist()
        row |= {"ms": middle, "low": low, "high": high, "rounds": rounds}
    about = {"machine": router.costs.machine, "runtime": f"onnxruntime {onnxruntime().__version__}"}
    return about | {"precision": manifest["precision"], "measured": time.strftime("%Y-%m-%d"), "rows": rows}


def keep(table: dict[str, Any], folder: Path) -> None:
    """Add a table to latency.json in place of an older one of the same machine, runtime and precision."""
    file, part = folder / "latency.json", folder / "latency.json.part"
    key = ("machine", "runtime", "precision")
    others = [one for one in read_tables(file) if any(one[name] != table[name] for name in key)]
    part.write_text(json.dumps({"version": 1, "tables": [*others, table]}, indent=1), "utf-8")
    part.replace(file)


# ---- pictures and files


def shade(one: dict[str, Any], index: int) -> tuple[int, ...]:
    """Return the colour of a class, for things lighter or darker by index, so that neighbours differ."""
    factor = (1.0, 0.75, 1.25, 0.6, 1.1)[index % 5] if one["isthing"] else 1.0
    return tuple(min(int(channel * factor), 255) for channel in one["color"])


def middle(mask: np.ndarray) -> tuple[int, int]:
    """Return column and row of the pixel of a mask that is nearest to its centroid."""
    rows, columns = mask.nonzero()
    nearest = ((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2).argmin()
    return int(columns[nearest]), int(rows[nearest])


def segments_of(answer: Answer) -> tuple[np.ndarray, list[int]]:
    """Return what is drawn: a map of numbers from 1, 0 nothing, and their classes."""
    if answer.panoptic is not None:
        return answer.panoptic.ids, answer.panoptic.labels.tolist()
    if answer.semantic is not None:
        present, places = np.unique(answer.semantic, return_inverse=True)
        return places.reshape(answer.semantic.shape) + 1, present.tolist()
    assert answer.instances is not None
    order = [i for i in np.argsort(answer.instances.scores) if answer.instances.scores[i] >= 0.5]
    ids = np.zeros(answer.instances.masks.shape[1:], np.int64)
    for number, i in enumerate(order, 1):  # the highest score last, on top
        ids[answer.instances.masks[i]] = number
    return ids, answer.instances.labels[order].tolist()


def paint(photo: Image.Image, answer: Answer, classes: Sequence[dict[str, Any]]) -> Image.Image:
    """Return a photo under its segments: coloured by class, outlined, named where there is room."""
    ids, labels = segments_of(answer)
    ids = enlarge(ids, photo.size[::-1])
    colors = np.array([(0, 0, 0), *(shade(classes[label], i) for i, label in enumerate(labels))], np.float64)
    pixels = np.array(photo)
    for rows in np.array_split(np.arange(len(ids)), -(-len(ids) // 256)):
        pixels[rows] = 0.35 * pixels[rows] + 0.65 * colors[ids[rows]]
    edge = np.zeros(ids.shape, bool)
    edge[1:] |= ids[1:] != ids[:-1]
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    pixels[edge] = 255
    panel = Image.fromarray(pixels)
    pen = ImageDraw.Draw(panel)
    for number, area in enumerate(np.bincount(ids.ravel(), minlength=len(labels) + 1)[1:].tolist(), 1):
        if area > 900:
            name, at = classes[labels[number - 1]]["name"], middle(ids == number)
            font = ImageFont.load_default(12)
            pen.text(at, name, "white", font, anchor="mm", stroke_width=2, stroke_fill="black")
    return panel


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask (H, W) as COCO's compressed run lengths."""
    flat = np.concatenate([[False], mask.ravel("F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    ends = changes if mask[-1, -1] else np.append(changes, mask.size)
    counts = np.diff(ends, prepend=0)
    differences = counts.copy()
    differences[3:] -= counts[1:-2]  # from the count before the last of the same value
    text = bytearray()
    for value in differences.tolist():
        more = True
        while more:  # five bits at a time, the sixth says that more follow
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text.append(bits + 32 * more + 48)
    return {"size": list(mask.shape), "counts": text.decode()}


def save_answer(answer: Answer, photo: np.ndarray, out: Path, name: str, manifest: dict[str, Any]) -> None:
    """Write overlays/NAME.jpg, json/NAME.json, panoptic/NAME.png (R + 256 G + 65536 B: segment), semantic/NAME.png."""
    classes = manifest["classes"]
    found: dict[str, Any] = {"exit": answer.exit, "gflops": answer.gflops, "ms": answer.ms, "size": list(answer.size)}
    picture = Image.fromarray(photo)
    picture.thumbnail((4096, 4096))
    save_image(paint(picture, answer, classes), out / "overlays" / f"{name}.jpg", quality=90)
    if answer.panoptic is not None:
        ids, labels, scores = answer.panoptic._replace(ids=enlarge(answer.panoptic.ids, answer.size))
        save_image(Image.fromarray((ids[..., None] >> (0, 8, 16)).astype(np.uint8)), out / "panoptic" / f"{name}.png")
        areas = np.bincount(ids.ravel(), minlength=len(labels) + 1)[1:].tolist()
        info = zip(range(1, len(labels) + 1), labels.tolist(), scores.tolist(), areas, strict=True)
        found["segments_info"] = [
            {
                "id": number,
                "category_id": classes[label]["id"],
                "category": classes[label]["name"],
                "isthing": int(classes[label]["isthing"]),
                "iscrowd": 0,
                "score": score,
                "area": area,
                "bbox": box_of(ids == number),
            }
            for number, label, score, area in info
            if area
        ]
    if answer.instances is not None:
        found["instances"] = [
            {
                "category_id": classes[label]["id"],
                "category": classes[label]["name"],
                "score": score,
                "segmentation": run_lengths(enlarge(mask, answer.size)),
            }
            for score, label, mask in zip(
                *(field.tolist() for field in answer.instances[:2]), answer.instances[2], strict=True
            )
            if mask.any()
        ]
    if answer.semantic is not None:
        ids = np.array([one["id"] for one in classes])
        ids = ids.astype(np.uint8 if ids.max() < 256 else np.uint16)
        save_image(Image.fromarray(ids[enlarge(answer.semantic, answer.size)]), out / "semantic" / f"{name}.png")
    file = out / "json" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found), "utf-8")


def box_of(mask: np.ndarray) -> list[int]:
    """Return left, top, width and height of a mask (H, W) that is not empty."""
    (top, *_, bottom), (left, *_, right) = (np.flatnonzero(mask.any(axis))[[0, -1]].tolist() for axis in (1, 0))
    return [left, top, right - left + 1, bottom - top + 1]


def save_image(picture: Image.Image, file: Path, **settings: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, **settings)


# ---- the command


def fail(message: str, status: int = 2) -> NoReturn:
    """Print what is wrong in one line, and exit."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        fail(message)


def size_of(text: str) -> list[int]:
    """Return [height, width] of HEIGHTxWIDTH."""
    height, width = map(int, text.split("x"))
    return [height, width]


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", help="image files and folders")
    parser.add_argument(
        "--export", type=Path, default=Path(__file__).parent, metavar="FOLDER", help="default: this file's"
    )
    parser.add_argument("--exit", type=int, metavar="N", help="of every photo")
    parser.add_argument("--beta", type=float, metavar="X", help="gain in quality that a layer must bring, for a gate")
    parser.add_argument("--budget-gflops", type=float, metavar="X")
    parser.add_argument("--budget-ms", type=float, metavar="X")
    parser.add_argument("--per-image", action="store_true", help="no photo above the budget")
    parser.add_argument("--threads", type=int, metavar="N", help="default: one for each CPU")
    parser.add_argument("--verify", action="store_true", help="compare the files' SHA-256 with the manifest's")
    parser.add_argument("--out", type=Path, default=Path("answers"), metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--measure", action="store_true", help="time every exit on this machine, for --budget-ms")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="timings of each; default: %(default)s")
    parser.add_argument("--sizes", type=lambda text: [size_of(one) for one in text.split(",")], metavar="HxW,...")
    return parser.parse_args(arguments)


def files_of(source: str) -> list[Path]:
    """Return a file, or the images in a folder, sorted. Raises FileNotFoundError if there are none."""
    path = Path(source)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if SUFFIX.fullmatch(file.suffix) and file.is_file())
        if not found:
            raise FileNotFoundError(f"{source}: no image in this folder")
        return found
    if not path.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    return [path]


def segment(args: argparse.Namespace) -> int:
    """Segment the photos of a command line; return the exit status: 1 if some could not be read."""
    files = list(dict.fromkeys(file for source in args.photos for file in files_of(source)))
    if not files:
        raise ValueError("nothing to segment: python runtime.py IMAGE|FOLDER ...")
    budget = (args.budget_gflops, args.budget_ms, args.per_image)
    router = Router(args.export, args.exit, args.beta, *budget, args.threads, args.verify)
    broken, taken = [], set()
    for file in files:
        begin = time.perf_counter()
        try:
            photo = read_photo(file)
        except (ValueError, OSError) as error:
            broken.append(str(error))
            continue
        (answer,) = router.answers([photo])
        seconds, number = time.perf_counter() - begin, 1
        name = file.stem
        while name.casefold() in taken:
            name, number = f"{file.stem}_{number + 1}", number + 1
        taken.add(name.casefold())
        save_answer(answer, photo, args.out, name, router.manifest)
        costs = f"{answer.gflops:.4g} GFLOPs, {answer.ms:.1f} ms in the network, {seconds * 1e3:.1f} ms in all"
        print(f"{file}: exit {answer.exit}, {costs}")
    for why in broken:
        print(f"skipped {why}", file=sys.stderr)
    if broken:
        fail(f"{len(broken)} of {len(files)} files skipped; the rest is in {args.out}", 1)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Segment or measure; what is wrong is one line and exit status 2."""
    args = parsed(arguments)
    try:
        if not args.measure:
            return segment(args)
        table = measure(args.export, args.sizes, args.rounds, args.threads)
        keep(table, args.export)
        for row in table["rows"]:
            size, cost = "x".join(map(str, row["size"])), f"{row['gflops']:.4g} GFLOPs, {row['ms']:.2f} ms"
            print(f"{size} exit {row['exit']}: {cost} ({row['low']:.2f} to {row['high']:.2f})")
        print(f"{table['machine']}, {table['runtime']}, {table['precision']}: in {args.export / 'latency.json'}")
        return 0
    except (ValueError, OSError) as error:
        fail(str(error))


if __name__ == "__main__":
    sys.exit(main())
