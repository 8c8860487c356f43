"""The order of images: one stream of samples for training, a share of the images for evaluation."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from torch.utils.data import Dataset, DistributedSampler


class StepSampler(DistributedSampler):
    """Yields (index, draw) of one rank from a finite stream that is independent of epochs, ranks and resuming.

    Draw d of the stream shows image permutation(d // I)[d mod I] of I images, so every I draws show each image once.
    Rank r of R takes draws r, r + R, ..., so the ranks of one step see consecutive draws. `start` returns how many
    draws are done when an iteration begins; `len` counts from the start of the stream even so, because Lightning
    continues its count of batches when a run resumes. Lightning does not replace a DistributedSampler.
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
        """Return the image indices of one pass: (I,) int64."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.num_images)


def share(count: int, batch_size: int, rank: int, num_ranks: int) -> list[list[int]]:
    """Return the batches of one rank, which takes every num_ranks-th of `count` images, each once over all ranks.

    With fewer images than ranks, some ranks get one empty batch, because Lightning waits for every rank.
    """
    mine = range(rank, count, num_ranks)
    return [list(mine[first : first + batch_size]) for first in range(0, len(mine), batch_size)] or [[]]
