"""Which image comes next: one stream of samples for training, a plain share of the images for evaluation."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from torch.utils.data import Dataset, DistributedSampler


class StepSampler(DistributedSampler):
    """(index, draw) for the draws of one rank in a finite stream that does not know about epochs, ranks or resuming.

    Draw d of the stream shows image permutation(d // I)[d mod I] of I images, so every I draws show each image once.
    Rank r of R takes draws r, r + R, ...: what the ranks see in one step is one run of the stream. `start` is asked
    at each iteration how many draws are done; `len` counts from the stream's beginning all the same, for
    Lightning goes on counting batches where a resumed run stopped. It leaves a DistributedSampler in place when there
    are several ranks.
    """

    def __init__(
        self, dataset: Dataset, num_draws: int, start: Callable[[], int], seed: int, rank: int = 0, num_ranks: int = 1
    ) -> None:
        super().__init__(dataset, num_ranks, rank, shuffle=True, seed=seed)
        self.num_images, self.num_draws, self.start = len(dataset), num_draws, start  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(range(self.rank, self.num_draws, self.num_replicas))

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        order = lru_cache(1)(self.order)
        for draw in range(self.start() + self.rank, self.num_draws, self.num_replicas):
            epoch, place = divmod(draw, self.num_images)
            yield int(order(epoch)[place]), draw

    def order(self, epoch: int) -> np.ndarray:
        """The images of one pass: (I,) int64."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.num_images)


def share(count: int, batch_size: int, rank: int, num_ranks: int) -> list[list[int]]:
    """Batches of every num_ranks-th of so many images, none twice: scores over all ranks are those of one process.

    Where there are fewer images than ranks, some have one batch without images: Lightning waits for every rank.
    """
    mine = range(rank, count, num_ranks)
    return [list(mine[first : first + batch_size]) for first in range(0, len(mine), batch_size)] or [[]]
