"""Download COCO 2017 and lay it out as the readers expect. Run it again to resume.

python -m scripts.prepare_coco --root data/coco

Takes 20 GB of downloads and, until the archives are removed at the end of each, twice that on disk. Without a network,
put the archives into ROOT/archives by other means and run the same command.
"""

from scripts.archives import Archive, prepare_all

TRAIN, VAL = 118_287, 5_000  # images
ARCHIVES = (
    Archive("images", "zips/val2017.zip", {"val2017": VAL}, sha1="4950dc9d00dbe1c933ee0170f5797584351d2a41"),
    Archive("images", "zips/train2017.zip", {"train2017": TRAIN}, sha1="10ad623668ab00c62c096f0ed636d6aff41faca5"),
    Archive(
        "instances",
        "annotations/annotations_trainval2017.zip",
        {"annotations/instances_train2017.json": 1, "annotations/instances_val2017.json": 1},
        sha1="8551ee4bb5860311e79dace7e79cb91e432e78b3",
    ),
    Archive(
        "panoptic",
        "annotations/panoptic_annotations_trainval2017.zip",
        {
            "annotations/panoptic_train2017.json": 1,
            "annotations/panoptic_val2017.json": 1,
            "panoptic_train2017": TRAIN,
            "panoptic_val2017": VAL,
        },
    ),
)


def main(arguments: list[str] | None = None) -> None:
    prepare_all(__doc__, "data/coco", "http://images.cocodataset.org", ARCHIVES, arguments)


if __name__ == "__main__":
    main()
