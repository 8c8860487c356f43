"""Scenes written to disk in COCO's two layouts, Cityscapes' or as index masks, for trying the readers or to be kept."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from src.data.formats.coco_masks import mask_to_rle
from src.data.scenes import Scenes
from src.data.targets import Category, Sample
from src.system.atomic import atomic_write

Entry = dict[str, Any]


def export_coco(scenes: Scenes, root: Path, split: str) -> None:
    """Images, panoptic masks and both annotation files of one split ("train" or "val"), named as COCO 2017's.

    Images are PNGs, so that what is read back is what was written. Truths must have one layer.
    """
    image_folder, mask_folder = root / f"{split}2017", root / f"panoptic_{split}2017"
    for folder in (image_folder, mask_folder, root / "annotations"):
        folder.mkdir(parents=True, exist_ok=True)
    images: list[Entry] = []
    panoptic: list[Entry] = []
    instances: list[Entry] = []
    for sample in (scenes[index] for index in range(len(scenes))):
        file_name = f"{sample.image_id:012d}.png"
        ids = segment_id(np.arange(1, len(sample.truth.labels) + 1))
        save(sample, ids, image_folder / file_name, mask_folder / file_name)
        height, width = sample.image.shape[-2:]
        images.append({"id": sample.image_id, "file_name": file_name, "height": height, "width": width})
        segments = describe(sample, scenes.categories, ids)
        panoptic.append({"image_id": sample.image_id, "file_name": file_name, "segments_info": segments})
        instances += objects(sample, scenes.categories, segments, first_id=len(instances) + 1)
    things = [category for category in scenes.categories if category.isthing]
    for layout, annotations, categories in (
        ("panoptic", panoptic, scenes.categories),
        ("instances", instances, things),
    ):
        document = {"images": images, "annotations": annotations, "categories": [c._asdict() for c in categories]}
        (root / "annotations" / f"{layout}_{split}2017.json").write_text(json.dumps(document))


def export_cityscapes(scenes: Scenes, root: Path, split: str) -> None:
    """Images, their masks and the panoptic ones of one split ("train" or "val"), named and numbered as Cityscapes does.

    Truths must have one layer and, of each class, one segment that is stuff or a crowd: its id is the class's own.
    """
    masks = f"cityscapes_panoptic_{split}"
    image_folder, mask_folder = root / "leftImg8bit" / split / "aachen", root / "gtFine" / masks
    label_folder = root / "gtFine" / split / "aachen"
    for folder in (image_folder, mask_folder, label_folder):
        folder.mkdir(parents=True, exist_ok=True)
    images: list[Entry] = []
    annotations: list[Entry] = []
    for sample in (scenes[index] for index in range(len(scenes))):
        image_id = f"aachen_{sample.image_id:06d}_000019"
        mask_name = f"{image_id}_gtFine_panoptic.png"
        classes = np.array([category.id for category in scenes.categories])[sample.truth.labels]
        things = np.array([category.isthing for category in scenes.categories])[sample.truth.labels]
        single = things & ~sample.truth.crowd.numpy()
        ids = np.where(single, classes * 1000 + np.arange(len(classes)), classes)
        save(sample, ids, image_folder / f"{image_id}_leftImg8bit.png", mask_folder / mask_name)
        save_index(sample, ids, label_folder / f"{image_id}_gtFine_instanceIds.png", np.uint16)
        save_index(sample, classes, label_folder / f"{image_id}_gtFine_labelIds.png")
        height, width = sample.image.shape[-2:]
        file_name = f"{image_id}_gtFine_leftImg8bit.png"
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        segments = describe(sample, scenes.categories, ids)
        annotations.append({"image_id": image_id, "file_name": mask_name, "segments_info": segments})
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [category._asdict() for category in scenes.categories],
    }
    (root / "gtFine" / f"{masks}.json").write_text(json.dumps(document))


def export_index_masks(
    scenes: Scenes, image_folder: Path, mask_folder: Path, values: Sequence[int], unlabelled: int
) -> None:
    """Images and masks of the same names, in which each class has its value and what is nothing has `unlabelled`."""
    for folder in (image_folder, mask_folder):
        folder.mkdir(parents=True, exist_ok=True)
    bits = np.min_scalar_type(max(*values, unlabelled))  # 8 or 16
    for sample in (scenes[index] for index in range(len(scenes))):
        name = f"{sample.image_id:012d}.png"
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(image_folder / name)
        save_index(sample, np.array(values)[sample.truth.labels], mask_folder / name, bits, unlabelled)


def segment_id(numbers: np.ndarray) -> np.ndarray:
    """Numbers from 1 as ids up to 2^24, no two alike, that use all three bytes of a colour."""
    return numbers * 40009 % 2**24


def save(sample: Sample, ids: np.ndarray, image_file: Path, mask_file: Path) -> None:
    """Write an image and its panoptic mask, in which segments have `ids` (N,) as R + 256 G + 65536 B."""
    Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(image_file)
    save_colors(np.array([0, *ids])[sample.truth.segments[0]], mask_file)


def colors_of(ids: np.ndarray) -> np.ndarray:
    """Segment ids (H, W) as colours (H, W, 3) uint8, R + 256 G + 65536 B."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def save_colors(ids: np.ndarray, file: Path) -> None:
    """Write a map of segment ids (H, W) as R + 256 G + 65536 B."""
    save_map(colors_of(ids), file)


def save_map(values: np.ndarray, file: Path) -> None:
    """Write values (H, W) or colours (H, W, 3) as a picture."""
    with atomic_write(file, durable=False) as part:
        Image.fromarray(values).save(part)


def save_index(
    sample: Sample, ids: np.ndarray, file: Path, dtype: np.typing.DTypeLike = np.uint8, unlabelled: int = 0
) -> None:
    """Write a mask in which segments have `ids` (N,) in one channel."""
    Image.fromarray(np.array([unlabelled, *ids]).astype(dtype)[sample.truth.segments[0]]).save(file)


def describe(sample: Sample, categories: list[Category], ids: np.ndarray) -> list[Entry]:
    """The entry of every segment in the panoptic file, with `ids` (N,)."""
    truth = sample.truth
    rows = zip(ids.tolist(), truth.labels.tolist(), truth.crowd.tolist(), truth.areas.tolist(), strict=True)
    return [
        {"id": id_, "category_id": categories[label].id, "iscrowd": int(crowd), "area": area}
        for id_, label, crowd, area in rows
    ]


def objects(sample: Sample, categories: list[Category], segments: list[Entry], first_id: int) -> list[Entry]:
    """The entries of an image's things in the instances file, masks as run lengths."""
    entries: list[Entry] = []
    for segment, label, mask in zip(segments, sample.truth.labels.tolist(), sample.truth.masks().numpy(), strict=True):
        if categories[label].isthing:
            outline = mask_to_rle(mask)
            box = run_lengths.toBbox(outline).tolist()
            new = {"id": first_id + len(entries), "image_id": sample.image_id, "segmentation": outline, "bbox": box}
            entries.append(segment | new)
    return entries
