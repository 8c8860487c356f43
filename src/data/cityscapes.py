"""Cityscapes: the panoptic form that its own scripts prepare, and objects read directly from its own files.

Semantic segmentation needs no code here: its masks are index masks (conf/data/cityscapes_semantic.yaml).
"""

from src.data.coco import CocoPanoptic
from src.data.index_masks import IndexMasks
from src.data.targets import Category

LOGIN = "Cityscapes requires a login: put leftImg8bit and gtFine of https://www.cityscapes-dataset.com into FOLDER"


class CityscapesPanoptic(CocoPanoptic):
    """COCO's panoptic layout, with names as image ids and images in a folder for each city.

    Categories may be numbered by label ids or by train ids, which have the same order.
    """

    source = f"{LOGIN}, then run `pip install '.[cityscapes]'` and `CITYSCAPES_DATASET=FOLDER csCreatePanopticImgs`."

    def _image_name(self, name: str) -> str:
        # The scripts name images after the labels they were made from: ulm_000000_000019_gtFine_leftImg8bit.png
        return f"{name.split('_')[0]}/{name.replace('_gtFine', '')}"


class CityscapesInstances(IndexMasks):
    """The things, from 16-bit masks named _gtFine_instanceIds.png.

    A value is 1000 x label id + number of the object. Stuff, and groups of objects, which are crowds, have the label id
    alone.
    """

    source = f"{LOGIN}."

    def _learnt(self, classes: list[Category]) -> list[Category]:
        return [category for category in classes if category.isthing]

    def _class_of(self, value: int) -> tuple[int, bool]:
        return (value // 1000, False) if value >= 1000 else (value, True)
