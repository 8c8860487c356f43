"""Which images still need a label, and where labels are kept while a shard fills."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.exit_table.table import About, Rows, differs, present, read, read_about, shard_file, write_shard


class ExitTableWriter:
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

    def keep(self, batch_index: int, image_ids: Sequence[int], names: Sequence[str], labels: Mapping[str, Any]) -> None:
        """Take the labels of a batch, and write their shard when it is whole."""
        self.waiting.append(Rows(image_ids, names, **labels))
        last = self.batches[batch_index][-1]
        number = last // self.about.shard_size
        if last == self.about.shard(number)[-1]:
            write_shard(self.folder, number, self.waiting, self.about)
            self.waiting = []

    def finish(self) -> int:
        """How many images of the whole table have a quality. Raises ValueError if shards are missing or damaged."""
        return int(read(self.folder).labelled.sum())
