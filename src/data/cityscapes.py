"""Cityscapes in the panoptic form that its own scripts prepare."""

from pathlib import Path

from src.data.coco import CocoPanoptic


class CityscapesPanoptic(CocoPanoptic):
    """Street scenes: COCO's panoptic layout, with names for ids and images in a folder for each city.

    Categories may be numbered by label ids or by train ids, which come in the same order.
    """

    source = (
        "Cityscapes is behind a login: put leftImg8bit and gtFine of https://www.cityscapes-dataset.com into FOLDER, "
        "then run `pip install cityscapesscripts` and `CITYSCAPES_DATASET=FOLDER csCreatePanopticImgs`."
    )

    def _image_file(self, index: int) -> Path:
        # The scripts name images after the labels they were made from: ulm_000000_000019_gtFine_leftImg8bit.png
        name = self.annotations.image_names[index].decode()
        return self.image_folder / name.split("_")[0] / name.replace("_gtFine", "")
