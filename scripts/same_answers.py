"""Compare the files of src.predict with those of an export's runtime.py, for the same photos.

python -m scripts.same_answers FOLDER_OF_PREDICT FOLDER_OF_RUNTIME

Prints the differences of exits, segments, scores and pixels. The exit status is 1 if answers are not the same: other
exits, segments or classes, scores that differ by more than 1e-3, or more than 0.1 % of the pixels.
"""

import argparse
import csv
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from src.config.errors import MISTAKES, reason

SCORES, PIXELS = 1e-3, 1e-3  # what may differ: a score, and the share of a map's pixels
Entry = Mapping[str, Any]


class Difference(NamedTuple):
    """The largest differences of one image, or of all."""

    exits: int = 0  # images that left elsewhere
    segments: int = 0  # segments or instances without a counterpart of the same class
    scores: float = 0.0
    pixels: float = 0.0  # share of a map

    def worst(self, other: "Difference") -> "Difference":
        """Return sums of counts, and the larger ones of the others."""
        counts = (self.exits + other.exits, self.segments + other.segments)
        return Difference(*counts, max(self.scores, other.scores), max(self.pixels, other.pixels))

    @property
    def same(self) -> bool:
        return not self.exits and not self.segments and self.scores <= SCORES and self.pixels <= PIXELS


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare all photos, print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", type=Path, help="folder that src.predict wrote")
    parser.add_argument("theirs", type=Path, help="folder that runtime.py wrote")
    args = parser.parse_args(arguments)
    try:
        found = compared(args.ours, args.theirs)
    except (*MISTAKES, KeyError) as error:
        sys.exit(f"error: {reason(error) if isinstance(error, MISTAKES) else f'no entry {error}'}")
    total = Difference()
    for name, one in found.items():
        total = total.worst(one)
        if not one.same:
            print(f"{name}: {spell(one)}")
    print(f"{sum(one.same for one in found.values())} of {len(found)} photos with the same answers; {spell(total)}")
    sys.exit(0 if all(one.same for one in found.values()) else 1)


def spell(one: Difference) -> str:
    return (
        f"other exits {one.exits}, other segments {one.segments}, scores differ by up to {one.scores:.1e}, "
        f"maps in up to {one.pixels:.3%} of their pixels"
    )


def compared(ours: Path, theirs: Path) -> dict[str, Difference]:
    """Return the differences by photo. Raises ValueError for folders with other photos."""
    with (ours / "exits.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = list(csv.DictReader(stream))
    answers = {file.stem: json.loads(file.read_text("utf-8")) for file in (theirs / "json").glob("*.json")}
    if {row["name"] for row in rows} != set(answers):
        raise ValueError(
            f"{ours} has {len(rows)} photos, {theirs} {len(answers)}, and not the same; expected both alike"
        )
    segments, instances = by_image(ours / "panoptic.json"), by_image(ours / "instances.json")
    return {
        row["name"]: Difference(exits=int(int(row["exit"]) != answers[row["name"]]["exit"]))
        .worst(of_panoptic(segments.get(int(row["image_id"]), []), answers[row["name"]]))
        .worst(of_instances(instances.get(int(row["image_id"]), []), answers[row["name"]]))
        .worst(of_maps(ours, theirs, row["name"]))
        for row in rows
    }


def by_image(file: Path) -> dict[int, list[Entry]]:
    """Return the segments or instances in a file of src.predict by image; none if there is no such file."""
    found: dict[int, list[Entry]] = defaultdict(list)
    content = json.loads(file.read_text("utf-8")) if file.is_file() else []
    for entry in content["annotations"] if isinstance(content, dict) else content:
        found[entry["image_id"]] += entry.get("segments_info", [entry])
    return found


def of_panoptic(ours: Sequence[Entry], answer: Entry) -> Difference:
    """Compare panoptic segments by their number."""
    theirs = {one["id"]: one for one in answer.get("segments_info", [])}
    pairs = [(one, theirs[one["id"]]) for one in ours if one["id"] in theirs]
    alike = [(a, b) for a, b in pairs if a["category_id"] == b["category_id"]]
    lone = len(ours) + len(theirs) - 2 * len(alike)
    return Difference(0, lone, max((abs(a["score"] - b["score"]) for a, b in alike), default=0.0))


def of_instances(ours: Sequence[Entry], answer: Entry) -> Difference:
    """Compare instances by rank; those whose scores are equal but for rounding may have changed places."""
    theirs = list(answer.get("instances", []))
    lone, scores, pixels = abs(len(ours) - len(theirs)), 0.0, 0.0
    for one in ours:
        near = [
            (overlap(one, other), place)
            for place, other in enumerate(theirs)
            if other["category_id"] == one["category_id"] and abs(other["score"] - one["score"]) <= SCORES
        ]
        if not near:
            lone += 1
            continue
        share, place = max(near)
        scores = max(scores, abs(theirs[place]["score"] - one["score"]))
        pixels = max(pixels, 1 - share if share < 1 - 10 * PIXELS else 0.0)  # edges of small masks
        del theirs[place]
    return Difference(0, lone, scores, pixels)


def overlap(one: Entry, other: Entry) -> float:
    """Return the IoU of two masks."""
    return float(run_lengths.iou([one["segmentation"]], [other["segmentation"]], [0])[0, 0])


def of_maps(ours: Path, theirs: Path, name: str) -> Difference:
    """Compare the maps of a photo that src.predict wrote."""
    shares = [0.0]
    for kind in ("panoptic", "semantic"):
        file = ours / kind / f"{name}.png"
        if file.is_file():
            a, b = (np.asarray(Image.open(folder / kind / f"{name}.png")) for folder in (ours, theirs))
            if a.shape != b.shape:
                raise ValueError(f"{file}: {a.shape} pixels, and {b.shape} in {theirs}; expected the same")
            shares.append(float((a != b).reshape(*a.shape[:2], -1).any(-1).mean()))
    return Difference(pixels=max(shares))


if __name__ == "__main__":
    main()
