"""Fetch ADE20K (SceneParse-150) and make its panoptic and instance annotations, in COCO's formats.

python -m scripts.prepare_ade20k --root data/ADEChallengeData2016

Takes downloads of 1 GB. For classes alone, --only semantic is enough and nothing is made. Without a network, put the
archives into ROOT/archives by other means and run the same command. Files that Mask2Former's scripts made serve too.
"""

from scripts.ade20k_objects import write_objects
from scripts.archives import Archive, prepare_all

TRAIN, VAL = 20_210, 2_000  # images
ARCHIVES = (
    Archive(
        "semantic",
        "places/ADEchallenge/ADEChallengeData2016.zip",
        {
            "images/training": TRAIN,
            "images/validation": VAL,
            "annotations/training": TRAIN,
            "annotations/validation": VAL,
            "objectInfo150.txt": 1,
        },
        within="ADEChallengeData2016",
        sha1="219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
    ),
    Archive(
        "objects",
        "http://sceneparsing.csail.mit.edu/data/ChallengeData2017/annotations_instance.tar",
        {"annotations_instance/training": TRAIN, "annotations_instance/validation": VAL},
    ),
)


def main(arguments: list[str] | None = None) -> None:
    url = "http://data.csail.mit.edu"
    args = prepare_all(__doc__, "data/ADEChallengeData2016", url, ARCHIVES, arguments)
    if args.only != "semantic":
        write_objects(args.root)


if __name__ == "__main__":
    main()
