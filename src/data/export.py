"""Write scenes to disk in COCO's two layouts, in Cityscapes' layout, or as index masks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths
from torch import Tensor

from src.data.formats.coco_masks import mask_to_rle
from src.data.formats.json_file import Entry
from src.data.scenes import Scenes
from src.data.targets import Category, Sample
from src.system.atomic import atomic_write, write_json


def export_coco(scenes: Scenes, root: Path, split: str) -> None:
    """Write images, panoptic masks and both annotation files of a split ("train" or "val"), named as COCO 2017's.

    Images are PNGs, so that what is read back is what was written. Truths must have one layer.
    """
    images: list[Entry] = []
    panoptic: list[Entry] = []
    instances: list[Entry] = []
    for sample in (scenes[index] for index in range(len(scenes))):
        file_name = f"{sample.image_id:012d}.png"
        ids = segment_id(np.arange(1, len(sample.truth.labels) + 1))
        save_image(sample.image, root / f"{split}2017" / file_name)
        save_colors(map_of(sample, ids), root / f"panoptic_{split}2017" / file_name)
        images.append(image_entry(sample, sample.image_id, file_name))
        segments = segment_entries(sample, scenes.categories, ids)
        panoptic.append({"image_id": sample.image_id, "file_name": file_name, "segments_info": segments})
        instances += object_entries(sample, scenes.categories, segments, first_id=len(instances) + 1)
    things = [category for category in scenes.categories if category.isthing]
    write_document(root / "annotations" / f"panoptic_{split}2017.json", images, panoptic, scenes.categories)
    write_document(root / "annotations" / f"instances_{split}2017.json", images, instances, things)


def export_cityscapes(scenes: Scenes, root: Path, split: str) -> None:
    """Write images and all kinds of masks of a split ("train" or "val"), named and numbered as in Cityscapes.

    Truths must have one layer and at most one segment per class that is stuff or a crowd: its id is the class's own.
    """
    masks, city = root / "gtFine" / f"cityscapes_panoptic_{split}", Path(split) / "aachen"
    images: list[Entry] = []
    annotations: list[Entry] = []
    for sample in (scenes[index] for index in range(len(scenes))):
        image_id = f"aachen_{sample.image_id:06d}_000019"
        mask_name = f"{image_id}_gtFine_panoptic.png"
        classes = np.array([category.id for category in scenes.categories])[sample.truth.labels]
        things = np.array([category.isthing for category in scenes.categories])[sample.truth.labels]
        single = things & ~sample.truth.crowd.numpy()
        ids = np.where(single, classes * 1000 + np.arange(len(classes)), classes)
        save_image(sample.image, root / "leftImg8bit" / city / f"{image_id}_leftImg8bit.png")
        save_colors(map_of(sample, ids), masks / mask_name)
        labels = root / "gtFine" / city
        save_map(map_of(sample, ids).astype(np.uint16), labels / f"{image_id}_gtFine_instanceIds.png")
        save_map(map_of(sample, classes).astype(np.uint8), labels / f"{image_id}_gtFine_labelIds.png")
        images.append(image_entry(sample, image_id, f"{image_id}_gtFine_leftImg8bit.png"))
        segments = segment_entries(sample, scenes.categories, ids)
        annotations.append({"image_id": image_id, "file_name": mask_name, "segments_info": segments})
    write_document(masks.with_suffix(".json"), images, annotations, scenes.categories)


def export_index_masks(
    scenes: Scenes, image_folder: Path, mask_folder: Path, values: Sequence[int], unlabelled: int
) -> None:
    """Write images, and masks of the same names in which each class has its value and void pixels `unlabelled`."""
    bits = np.min_scalar_type(max(*values, unlabelled))  # 8 or 16
    for sample in (scenes[index] for index in range(len(scenes))):
        name = f"{sample.image_id:012d}.png"
        save_image(sample.image, image_folder / name)
        mask = map_of(sample, np.array(values)[sample.truth.labels], unlabelled)
        save_map(mask.astype(bits), mask_folder / name)


def segment_id(numbers: np.ndarray) -> np.ndarray:
    """Return distinct ids below 2^24 for numbers from 1, which use all three bytes of a colour."""
    return numbers * 40009 % 2**24


def map_of(sample: Sample, ids: np.ndarray, unlabelled: int = 0) -> np.ndarray:
    """Return the map (H, W) in which segments have `ids` (N,)."""
    return np.array([unlabelled, *ids])[sample.truth.segments[0]]


def colors_of(ids: np.ndarray) -> np.ndarray:
    """Return segment ids (H, W) as colours (H, W, 3) uint8, R + 256 G + 65536 B."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def save_colors(ids: np.ndarray, file: Path) -> None:
    """Write a map of segment ids (H, W) as colours."""
    save_map(colors_of(ids), file)


def save_image(image: Tensor, file: Path) -> None:
    """Write an image (3, H, W) uint8."""
    save_map(image.permute(1, 2, 0).numpy(), file)


def save_map(values: np.ndarray, file: Path) -> None:
    """Write values (H, W) or colours (H, W, 3) as an image file."""
    with atomic_write(file, durable=False) as part:
        Image.fromarray(values).save(part)


def write_document(file: Path, images: list[Entry], annotations: list[Entry], categories: list[Category]) -> None:
    """Write a COCO JSON file."""
    document = {"images": images, "annotations": annotations, "categories": [c._asdict() for c in categories]}
    write_json(document, file, indent=None)


def image_entry(sample: Sample, image_id: int | str, file_name: str) -> Entry:
    height, width = sample.image.shape[-2:]
    return {"id": image_id, "file_name": file_name, "height": height, "width": width}


def segment_entries(sample: Sample, categories: list[Category], ids: np.ndarray) -> list[Entry]:
    """Return the entry of every segment in the panoptic file, with `ids` (N,)."""
    truth = sample.truth
    rows = zip(ids.tolist(), truth.labels.tolist(), truth.crowd.tolist(), truth.areas.tolist(), strict=True)
    return [
        {"id": id_, "category_id": categories[label].id, "iscrowd": int(crowd), "area": area}
        for id_, label, crowd, area in rows
    ]


def object_entries(sample: Sample, categories: list[Category], segments: list[Entry], first_id: int) -> list[Entry]:
    """Return the entries of an image's things in the instances file, masks as run lengths."""
    entries: list[Entry] = []
    for segment, label, mask in zip(segments, sample.truth.labels.tolist(), sample.truth.masks().numpy(), strict=True):
        if categories[label].isthing:
            outline = mask_to_rle(mask)
            box = run_lengths.toBbox(outline).tolist()
            new = {"id": first_id + len(entries), "image_id": sample.image_id, "segmentation": outline, "bbox": box}
            entries.append(segment | new)
    return entries
