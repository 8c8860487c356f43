"""Published figures as in section 5 of docs/method.md. Nothing here was measured by us."""

from string import ascii_lowercase
from typing import NamedTuple

ZOO, TABLE_1 = "Mask2Former's model zoo", "Mask2Former's table 1, second hand"
PRO_SCALE, ECO = "PRO-SCALE's README", "ECO-M2F's README"
DETR, DEFORMABLE_DETR, DINO = "DETR's table 1", "Deformable DETR's table 1", "DINO's table 1"


class Published(NamedTuple):
    """A published model and, if known, its cost."""

    data_set: str  # as in `Settings.data_set`
    model: str
    score: str  # PQ, AP, mIoU or box AP by task; per cent, digits as published
    gflops: str  # 1e9 multiply-adds of an image, digits as published; empty: not found
    source: str

    @property
    def letter(self) -> str:
        """A letter that marks the model in curve and table, unique in its data set."""
        return ascii_lowercase[[one for one in PUBLISHED if one.data_set == self.data_set].index(self)]

    @property
    def measure(self) -> str:
        """How the score was computed, if not like ours; else empty."""
        return OTHER_MEASURES.get(self.data_set, "")


MEASURES = {"panoptic": "pq", "instance": "ap", "semantic": "miou", "boxes": "box_ap"}
OTHER_MEASURES = {
    "Cityscapes val, instance": "Cityscapes' own AP, which integrates the precision-recall curve as it is; ours is "
    "COCO's, which takes the best precision at a recall or a higher one, and so tends to be higher"
}
BOXES = "COCO val2017, boxes"
COCO, CITYSCAPES = "COCO val2017, panoptic", "Cityscapes val, panoptic"
PUBLISHED = [
    Published(COCO, "Mask2Former, R50", "51.9", "226", f"{ZOO}; GFLOPs: {TABLE_1}"),
    Published(COCO, "Mask2Former, R101", "52.6", "293", f"{ZOO}; GFLOPs: {TABLE_1}"),
    Published(COCO, "Mask2Former, Swin-T", "53.2", "", ZOO),
    Published(COCO, "Mask2Former, Swin-L (ImageNet-21k)", "57.8", "868", f"{ZOO}; GFLOPs: {TABLE_1}"),
    Published(COCO, "PRO-SCALE 3 3 3, R50", "51.44", "", PRO_SCALE),
    Published(COCO, "PRO-SCALE 3 3 3, Swin-T", "52.88", "", PRO_SCALE),
    Published(COCO, "ECO-M2F, Swin-T, beta 0.0005", "52.06", "202.39", ECO),
    Published(COCO, "ECO-M2F, Swin-T, beta 0.02", "50.79", "181.64", ECO),
    Published(CITYSCAPES, "Mask2Former, R50", "62.1", "", ZOO),
    Published(CITYSCAPES, "Mask2Former, Swin-T", "63.9", "", ZOO),
    Published(CITYSCAPES, "ECO-M2F, Swin-T, beta 0.003", "64.18", "507.51", ECO),
    Published(CITYSCAPES, "ECO-M2F, Swin-T, beta 0.01", "62.09", "439.67", ECO),
    Published("COCO val2017, instance", "Mask2Former, R50", "43.7", "", ZOO),
    Published("COCO val2017, instance", "Mask2Former, Swin-T", "45.0", "", ZOO),
    Published("Cityscapes val, instance", "Mask2Former, R50", "37.4", "", ZOO),
    Published("Cityscapes val, instance", "Mask2Former, Swin-T", "39.7", "", ZOO),
    Published("Cityscapes val, semantic", "Mask2Former, R50", "79.4", "", ZOO),
    Published("Cityscapes val, semantic", "Mask2Former, Swin-T", "82.1", "", ZOO),
    Published("ADE20K val, panoptic", "Mask2Former, R50", "39.7", "", ZOO),
    Published("ADE20K val, panoptic", "Mask2Former, Swin-L (ImageNet-21k)", "48.1", "", ZOO),
    Published("ADE20K val, instance", "Mask2Former, R50", "26.4", "", ZOO),
    Published("ADE20K val, instance", "Mask2Former, Swin-L (ImageNet-21k)", "34.9", "", ZOO),
    Published("ADE20K val, semantic", "Mask2Former, R50", "47.2", "", ZOO),
    Published("ADE20K val, semantic", "Mask2Former, Swin-T", "47.7", "", ZOO),
    Published(BOXES, "DETR, R50, 500 epochs", "42.0", "86", DETR),
    Published(BOXES, "Deformable DETR, R50, 50 epochs", "43.8", "173", DEFORMABLE_DETR),
    Published(BOXES, "Deformable DETR, R50, with box refinement", "45.4", "173", DEFORMABLE_DETR),
    Published(BOXES, "Deformable DETR, R50, in two stages", "46.2", "173", DEFORMABLE_DETR),
    Published(BOXES, "DINO, R50, four levels, 12 epochs", "49.0", "279", DINO),
]


def published_on(data_set: str, quality: str) -> list[Published]:
    """Return the figures published for a data set, if `quality` is the measure of its task."""
    return [one for one in PUBLISHED if one.data_set == data_set and quality == MEASURES[data_set.split(", ")[-1]]]
