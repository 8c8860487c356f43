"""The base class of data sets on disk: image files in a folder, read together with their annotations."""

from pathlib import Path

from src.data.formats.annotations import TextRows
from src.data.formats.images import image_size, read_image
from src.data.scenes import Identity, Scenes
from src.data.targets import Sample, Truth

SOURCE = (
    "COCO, ADE20K and CamVid are downloaded by `python -m scripts.prepare_coco --root FOLDER` and its siblings, "
    "Cityscapes requires a login; your own data needs a layout of docs/data.md, or its own paths in the configuration."
)


class ImageFolder(Scenes):
    """Image files in a folder; subclasses set `image_names` and read the annotations."""

    source = SOURCE  # how to get the data, for messages
    image_names: TextRows  # relative to the image folder

    def __init__(self, image_folder: str | Path) -> None:
        self.image_folder = self._existing(image_folder, "image folder")

    def __len__(self) -> int:
        return len(self.image_names)

    def __getitem__(self, index: int) -> Sample:
        file = self._image_file(index)
        image = read_image(file)
        truth = self._truth(index, (image.shape[1], image.shape[2]))
        return Sample(image, truth, self.image_id(index), file.name)

    def image_id(self, index: int) -> int:
        """The id of an image, by default its index."""
        return index

    def identified(self, index: int) -> Identity:
        """The id, name and size of an image. Raises DataError if its size cannot be read."""
        file = self._image_file(index)
        return Identity(self.image_id(index), file.name, self._size(index))

    def _size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image, from the header of its file. Raises DataError."""
        return image_size(self._image_file(index))

    def _image_file(self, index: int) -> Path:
        return self.image_folder / self.image_names[index]

    def _truth(self, index: int, size: tuple[int, int]) -> Truth:
        """The annotations of an image of this size (height, width)."""
        raise NotImplementedError

    def _existing(self, path: str | Path, noun: str) -> Path:
        """The path of a folder or file. Raises FileNotFoundError, which says how to get the data."""
        exists = Path(path).is_dir() if "folder" in noun else Path(path).is_file()
        if not exists:
            raise FileNotFoundError(
                f"{noun} not found: {Path(path).absolute()}. Set data.root=FOLDER to where the data lies. {self.source}"
            )
        return Path(path)
