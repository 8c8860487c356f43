"""Which images still need a label, and where labels are kept while a shard fills."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from src.data.exit_table import About, Rows, differs, present, read, read_about, shard_file, write_shard
from src.data.targets import Batch, collate


class Labelling:
    """The shards of an exit table that are not there yet; opening the same table again goes on with it.

    Raises ValueError if the folder holds shards of another table, OSError if it cannot be written.
    """

    def __init__(self, folder: Path, about: About) -> None:
        self.folder, self.about = folder, about
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"table={folder}: no folder can be made there ({error.strerror})") from error
        for file in present(folder):
            if (difference := differs(about, read_about(file))) is not None:
                raise ValueError(
                    f"table={folder}: {file.name} there is of another table: {difference}; expected the same parent "
                    "and settings, or table= another folder"
                )
        self.missing = [n for n in range(about.num_shards) if not shard_file(folder, n).exists()]
        self.batches: list[list[int]] = []
        self.waiting: list[Rows] = []  # of the shard that fills

    def share(self, batch_size: int, rank: int, num_ranks: int) -> list[list[int]]:
        """Image indices batch by batch for one process; no batch reaches over the end of a shard."""
        shards = [self.about.shard(number) for number in self.missing[rank::num_ranks]]
        self.batches = [
            list(shard[first : first + batch_size]) for shard in shards for first in range(0, len(shard), batch_size)
        ]
        return self.batches

    def keep(self, batch_index: int, batch: Batch, labels: Mapping[str, Any]) -> None:
        """Take the labels of a batch, and write their shard when it is whole."""
        self.waiting.append(Rows(batch.image_ids, batch.names, **labels))
        last = self.batches[batch_index][-1]
        number = last // self.about.shard_size
        if last == self.about.shard(number)[-1]:
            write_shard(self.folder, number, self.waiting, self.about)
            self.waiting = []

    def finish(self) -> int:
        """How many images of the whole table have a quality. Raises ValueError if shards are missing or damaged."""
        return int(read(self.folder).labelled.sum())


class Batches(Dataset[Batch]):
    """Samples put together as told: the i-th item is the batch of the i-th list of indices."""

    def __init__(self, view: Dataset[Any], batches: Sequence[Sequence[int]]) -> None:
        self.view, self.batches = view, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return collate([self.view[place] for place in self.batches[index]])


def as_it_is(batch: Any) -> Any:
    """What a loader does with a batch that is one already."""
    return batch
