"""Write an exit table shard by shard; an interrupted one resumes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.exit_table.table import (
    LabelledBatch,
    TableInfo,
    finished_shards,
    first_difference,
    read_info,
    read_table,
    shard_file,
    write_shard,
)


class ExitTableWriter:
    """Writes the missing shards of an exit table.

    Raises ValueError if the folder holds shards of another table, OSError if it cannot be written.
    """

    def __init__(self, folder: Path, info: TableInfo) -> None:
        self.folder, self.info = folder, info
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"table={folder}: the folder cannot be created ({error.strerror})") from error
        for file in finished_shards(folder):
            if (difference := first_difference(info, read_info(file))) is not None:
                raise ValueError(
                    f"table={folder}: {file.name} there is of another table: {difference}; expected the same parent "
                    "and settings, or table= another folder"
                )
        self.missing = [number for number in range(info.num_shards) if not shard_file(folder, number).exists()]
        self.batches: list[list[int]] = []
        self.pending: list[LabelledBatch] = []  # of the shard being filled

    def share(self, batch_size: int, rank: int, num_ranks: int) -> list[list[int]]:
        """Return the image indices of each batch of one process; no batch spans two shards."""
        self.batches = []
        for number in self.missing[rank::num_ranks]:
            shard = self.info.shard(number)
            self.batches += [list(shard[first : first + batch_size]) for first in range(0, len(shard), batch_size)]
        return self.batches

    def keep(self, batch_index: int, image_ids: Sequence[int], names: Sequence[str], labels: Mapping[str, Any]) -> None:
        """Take the labels of a batch; write its shard if the batch completes it."""
        self.pending.append(LabelledBatch(image_ids, names, **labels))
        last = self.batches[batch_index][-1]
        number = last // self.info.shard_size
        if last == self.info.shard(number)[-1]:
            write_shard(self.folder, number, self.pending, self.info)
            self.pending = []

    def finish(self) -> int:
        """Return how many images have a quality. Raises ValueError if shards are missing or damaged."""
        return int(read_table(self.folder).labelled.sum())
