"""What scores are called in scores.json, for all who write or read them."""

from collections.abc import Iterable, Mapping

QUALITIES = ("pq", "ap", "miou")  # the first that there is counts
NOTHING = "nothing to score"  # said in the place of a score of images in which nothing is annotated, which is nan
SHARE = "share_exit"  # what names of shares of images begin with, the depth behind


def quality_of(rows: Iterable[Mapping[str, float]]) -> str | None:
    """The score that counts, of those that some rows have; None if they have none of them."""
    scored = {name for row in rows for name in row}
    return next((name for name in QUALITIES if name in scored), None)
