"""Cityscapes: in the panoptic form that its own scripts prepare, and objects straight from its own files.

Its classes alone need no code: they are index masks (conf/data/cityscapes_semantic.yaml).
"""

from src.data.coco import CocoPanoptic
from src.data.index_masks import IndexMasks
from src.data.targets import Category

LOGIN = "Cityscapes is behind a login: put leftImg8bit and gtFine of https://www.cityscapes-dataset.com into FOLDER"


class CityscapesPanoptic(CocoPanoptic):
    """Street scenes: COCO's panoptic layout, with names for ids and images in a folder for each city.

    Categories may be numbered by label ids or by train ids, which come in the same order.
    """

    source = f"{LOGIN}, then run `pip install '.[cityscapes]'` and `CITYSCAPES_DATASET=FOLDER csCreatePanopticImgs`."

    def _image_name(self, name: str) -> str:
        # The scripts name images after the labels they were made from: ulm_000000_000019_gtFine_leftImg8bit.png
        return f"{name.split('_')[0]}/{name.replace('_gtFine', '')}"


class CityscapesInstances(IndexMasks):
    """The things of street scenes, from 16-bit masks named _gtFine_instanceIds.png.

    A value is 1000 x label id + number of the object, or the label id alone: of stuff, and of objects that were
    annotated as a group, which are crowds.
    """

    source = f"{LOGIN}."

    def _learnt(self, classes: list[Category]) -> list[Category]:
        return [category for category in classes if category.isthing]

    def _class_of(self, value: int) -> tuple[int, bool]:
        return (value // 1000, False) if value >= 1000 else (value, True)
