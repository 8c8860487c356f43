"""Write ADE20K's panoptic and instance annotations in COCO's formats, from its index masks and object masks.

Same as Mask2Former's scripts: things cover stuff, but areas of stuff are those before covering, so hidden stuff may be
listed; classes are numbered from 0; ids of images are their names. Letters: H x W pixels.
"""

from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths
from rich.progress import track

from src.data.export import save_colors, segment_id
from src.data.formats.categories import read_categories
from src.data.formats.coco_masks import mask_to_rle
from src.data.formats.images import open_image
from src.data.index_masks import read_values
from src.system.atomic import write_json

Entry = dict[str, Any]
SPLITS = {"train": "training", "val": "validation"}
CLASSES = read_categories("ade20k")
THINGS = [category.id - 1 for category in CLASSES if category.isthing]  # masks of objects number them from 1
CATEGORIES = [
    {"id": category.id - 1, "name": category.name, "isthing": int(category.isthing), "color": category.color}
    for category in CLASSES
]


def write_objects(root: Path) -> None:
    """Write ade20k_panoptic_SPLIT.json with its masks, and ade20k_instance_SPLIT.json, unless they exist."""
    for split, folder in SPLITS.items():
        panoptic_file, instance_file = (root / f"ade20k_{kind}_{split}.json" for kind in ("panoptic", "instance"))
        if panoptic_file.exists() and instance_file.exists():
            print(f"there already: {panoptic_file}, {instance_file}")
            continue
        masks = root / f"ade20k_panoptic_{split}"
        masks.mkdir(exist_ok=True)
        images: list[Entry] = []
        panoptic: list[Entry] = []
        instances: list[Entry] = []
        for file in track(sorted((root / "images" / folder).glob("*.jpg")), f"objects of {split}"):
            name = f"{file.stem}.png"
            semantic = read_values(root / "annotations" / folder / name)  # (H, W)
            pixels = np.asarray(open_image(root / "annotations_instance" / folder / name).convert("RGB"))
            height, width = semantic.shape
            images.append({"id": file.stem, "file_name": file.name, "height": height, "width": width})
            found = objects(pixels[..., 0], pixels[..., 1])
            map_, segments = lay(stuff(semantic), found, semantic.shape)
            save_colors(map_, masks / name)
            panoptic.append({"image_id": file.stem, "file_name": name, "segments_info": segments})
            for category, mask in found:
                instances.append(instance(len(instances) + 1, file.stem, category, mask))
        things = [CATEGORIES[index] for index in THINGS]
        write_json({"images": images, "annotations": instances, "categories": things}, instance_file, indent=None)
        write_json({"images": images, "annotations": panoptic, "categories": CATEGORIES}, panoptic_file, indent=None)


Segment = tuple[int, np.ndarray]  # category, and mask (H, W) bool


def stuff(semantic: np.ndarray) -> list[Segment]:
    """Return one segment for each stuff class, from values (H, W): 0 is void, n the n-th class."""
    return [(n - 1, semantic == n) for n in np.unique(semantic).tolist() if n and n - 1 not in THINGS]


def objects(kinds: np.ndarray, numbers: np.ndarray) -> list[Segment]:
    """Return one segment for each object, from the thing class (from 1) and the object number at each pixel (H, W)."""
    segments = []
    for number in np.unique(numbers[numbers > 0]).tolist():
        mask = numbers == number
        segments.append((THINGS[int(kinds[mask][0]) - 1], mask))
    return segments


def lay(below: list[Segment], above: list[Segment], size: tuple[int, ...]) -> tuple[np.ndarray, list[Entry]]:
    """Return the map (H, W) of segment ids, with segments above covering those below, and an entry for each."""
    segments = [*below, *above]
    ids = segment_id(np.arange(1, len(segments) + 1))
    map_ = np.zeros(size, np.int64)
    for id_, (_, mask) in zip(ids, segments, strict=True):
        map_[mask] = id_
    return map_, [
        {"id": id_, "category_id": category, "iscrowd": 0, "area": int(mask.sum()), "bbox": box(mask)}
        for id_, (category, mask) in zip(ids.tolist(), segments, strict=True)
    ]


def instance(id_: int, image_id: str, category: int, mask: np.ndarray) -> Entry:
    """Return the entry of an object in the instance file."""
    of = {"id": id_, "image_id": image_id, "category_id": category, "iscrowd": 0}
    return of | {"segmentation": mask_to_rle(mask), "area": int(mask.sum()), "bbox": box(mask)}


def box(mask: np.ndarray) -> list[float]:
    """Return left, top, width and height of a mask."""
    return run_lengths.toBbox(mask_to_rle(mask)).tolist()
