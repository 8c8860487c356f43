"""Files and folders: found, or told what is missing."""

from pathlib import Path

SOURCE = (
    "COCO, ADE20K and CamVid are fetched by `python -m scripts.prepare_coco --root FOLDER` and its siblings, "
    "Cityscapes is behind a login; data of your own needs a layout of docs/data.md, or its own paths in the "
    "configuration."
)


def found(path: str | Path, what: str, source: str = SOURCE) -> Path:
    """The path, if there is something there; else says what is missing and, by `source`, how to get it."""
    if not (Path(path).is_dir() if "folder" in what else Path(path).is_file()):
        raise FileNotFoundError(
            f"{what} not found: {Path(path).absolute()}. data.root=FOLDER says where the data lies. {source}"
        )
    return Path(path)
