"""COCO's two layouts, panoptic and instances, read from disk: COCO itself or data of one's own.

Letters: H x W pixels, N segments of one image, L layers of its map.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as run_lengths

from src.data.annotations import Annotations, Grouping, Objects, instances, panoptic
from src.data.files import SOURCE, found
from src.data.photos import read_photo, read_picture
from src.data.scenes import Scenes
from src.data.targets import Sample, Truth, pack


class Coco(Scenes):
    """Images in a folder, annotations in a JSON file; what both layouts share."""

    layout: Grouping
    source = SOURCE

    def __init__(self, image_folder: str | Path, annotation_file: str | Path, keep_empty: bool = True) -> None:
        self.image_folder = found(image_folder, "image folder", self.source)
        file = found(annotation_file, "annotation file", self.source)
        self.annotations = Annotations(file, type(self).layout, keep_empty)
        self.categories = self.annotations.categories
        if not len(self):
            raise ValueError(f"{annotation_file}: no image in it{'' if keep_empty else ' has an object'}")
        self._check_files(map(self._image_file, range(len(self))))

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Sample:
        file = self._image_file(index)
        image = read_photo(file)
        height, width = image.shape[-2:]
        stated = tuple(self.annotations.sizes[index].tolist())
        if 0 not in stated and stated != (height, width):
            raise ValueError(
                f"{file}: is {height} x {width} (height x width), but "
                f"{self.annotations.file} says {stated[0]} x {stated[1]}"
            )
        segments = self._segments(index, height, width)
        return Sample(image, truth(segments, self.annotations.of(index)), self.image_id(index), file.name)

    def image_id(self, index: int) -> int:
        """The id of an image in the annotation file; its place there if ids are names."""
        return int(self.annotations.image_ids[index])

    def _image_file(self, index: int) -> Path:
        return self.image_folder / self.annotations.image_names[index].decode()

    def _check_files(self, files: Iterable[Path]) -> None:
        """Refuse files that are named and not there, now rather than hours into training."""
        there: dict[Path, set[str]] = {}  # a listing of each folder is quicker than a look at each file
        absent: list[Path] = []
        for file in files:
            if file.parent not in there:
                there[file.parent] = set(os.listdir(file.parent)) if file.parent.is_dir() else set()
            if file.name not in there[file.parent]:
                absent.append(file)
        if absent:
            raise FileNotFoundError(
                f"{absent[0].absolute()}: no such picture, but {self.annotations.file} names it"
                f"{f' (and {len(absent) - 1} more)' if absent[1:] else ''}"
            )

    def _segments(self, index: int, height: int, width: int) -> np.ndarray:
        """The image's segments, numbered from 1 in the order of the file: (L, height, width) int32."""
        raise NotImplementedError


class CocoPanoptic(Coco):
    """Things and stuff that share out the pixels; masks are PNGs whose colours are segment ids.

    `keep_empty` false leaves out images without a segment, or with crowds only, as Mask2Former does in training.
    """

    layout = staticmethod(panoptic)

    def __init__(
        self,
        image_folder: str | Path,
        annotation_file: str | Path,
        mask_folder: str | Path,
        keep_empty: bool = True,
        covered: bool = False,  # whether segments may be listed that have no pixel: ADE20K's stuff under things
    ) -> None:
        super().__init__(image_folder, annotation_file, keep_empty)
        self.mask_folder, self.covered = found(mask_folder, "mask folder", self.source), covered
        self._check_files(filter(None, map(self._mask_file, range(len(self)))))

    def _mask_file(self, index: int) -> Path | None:
        name = self.annotations.mask_names[index].decode()
        return self.mask_folder / name if name else None

    def _segments(self, index: int, height: int, width: int) -> np.ndarray:
        file = self._mask_file(index)
        if file is None:  # the annotation file lists the image and says nothing about it
            return np.zeros((1, height, width), np.int32)
        colors = np.asarray(read_picture(file).convert("RGB").convert("RGBA"))
        if colors.shape[:2] != (height, width):
            raise ValueError(f"{file}: is {colors.shape[0]} x {colors.shape[1]}, but its image is {height} x {width}")
        pixels = (colors.view("<u4") & 0xFFFFFF).ravel()  # R + 256 G + 65536 B

        # Ids come in runs along the rows: looking up thousands of runs is many times faster than as many pixels.
        starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1])
        values, places = np.unique(pixels[starts], return_inverse=True)
        numbers = self._number(values, self.annotations.of(index).ids, file)
        runs = np.diff(starts, append=len(pixels))
        return np.repeat(numbers[places], runs).reshape(1, height, width)

    def _number(self, values: np.ndarray, ids: np.ndarray, file: Path) -> np.ndarray:
        """Place of each of the values in ids, from 1; 0, unlabelled, stays 0."""
        number_of = {0: 0} | {id_: number for number, id_ in enumerate(ids.tolist(), 1)}
        if unknown := sorted(set(values.tolist()) - set(number_of)):
            raise ValueError(
                f"{file}: has segment ids {unknown[:5]}, which {self.annotations.file} does not list for it"
            )
        if not self.covered and (absent := sorted(set(number_of) - {0} - set(values.tolist()))):
            raise ValueError(f"{file}: lacks segment ids {absent[:5]}, which {self.annotations.file} lists for it")
        return np.array([number_of[value] for value in values.tolist()], np.int32)


class CocoInstances(Coco):
    """Objects that may overlap; masks are polygons or run lengths in the annotation file itself."""

    layout = staticmethod(instances)

    def _segments(self, index: int, height: int, width: int) -> np.ndarray:
        ids, outlines = self.annotations.of(index).ids, self.annotations.outlines_of(index)
        masks = np.zeros((len(ids), height, width), bool)
        for mask, id_, outline in zip(masks, ids, outlines, strict=True):
            try:
                runs = run_lengths.frPyObjects(outline, height, width) if uncompressed(outline) else outline
                mask[:] = run_lengths.decode(run_lengths.merge(runs) if isinstance(runs, list) else runs)
            except Exception as error:  # pycocotools raises whatever its C code met
                raise ValueError(f"{self.annotations.file}: annotation {id_} has no readable mask ({error})") from error
        return pack(masks)


def uncompressed(outline: list[list[float]] | dict[str, object]) -> bool:
    """Whether pycocotools must first make run lengths of it: polygons, and counts that are a plain list."""
    return isinstance(outline, list) or isinstance(outline["counts"], list)


def truth(segments: np.ndarray, objects: Objects) -> Truth:
    """The record of one image; areas the file does not give are counted."""
    areas = objects.areas
    if np.isnan(areas).any():
        counted = np.bincount(segments.ravel(), minlength=len(areas) + 1)[1:]
        areas = np.where(np.isnan(areas), counted, areas).astype(np.float32)
    columns = (torch.from_numpy(column.copy()) for column in (objects.labels, objects.crowd, areas))
    return Truth(torch.from_numpy(segments), *columns)
