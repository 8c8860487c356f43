"""The levels of each layer, from counts."""

import pytest

from src.models.schedule import Expand, as_written, expand_schedule, full, growing, interleaved


@pytest.mark.parametrize("schedule", [[], [0, 0, 0], [1, -1, 2], [1, 1, 1, 1], [1.5, 0, 0]])
def test_a_schedule_that_cannot_be_is_refused(schedule: list) -> None:
    """The error repeats the schedule."""
    with pytest.raises(ValueError, match=r"schedule=\["):
        expand_schedule(schedule)


@pytest.mark.parametrize(
    ("expand", "schedule", "expected"),
    [
        (as_written, [1, 2, 1], "1 2 2 3"),
        (full, [0, 0, 3], "3 3 3"),
        (growing, [0, 0, 3], "1 2 3"),
        (growing, [0, 0, 6], "1 1 1 2 2 2 3 3 3"),
        (interleaved, [0, 0, 3], "1-2/3 1-2/3 3/3"),
        (interleaved, [0, 0, 6], " ".join(["1-2/3 1-2/3 3/3"] * 3)),
        (interleaved, [0, 0, 1], "1-2/3 1-2/3 3/3"),
    ],
)
def test_layers_follow_from_mask2formers(expand: Expand, schedule: list[int], expected: str) -> None:
    """As published for six layers, and fewer for small models."""
    assert " ".join(map(str, expand(schedule))) == expected


@pytest.mark.parametrize("expand", [full, growing, interleaved])
@pytest.mark.parametrize("schedule", [[3, 3, 3], [0, 1, 2], [0, 2]])
def test_other_schedules_are_refused(expand: Expand, schedule: list[int]) -> None:
    """A schedule that grows already says nothing about Mask2Former's."""
    with pytest.raises(ValueError, match=r"schedule=\[.*mask2former_\*"):
        expand(schedule)


def test_own_numbers_need_no_schedule_of_mask2formers() -> None:
    """Blocks, layers of a block and layers of a stage may be given."""
    assert len(interleaved([3, 3, 3], coarse_layers=4, blocks=2)) == 10
    assert [levels.sampled for levels in growing([1, 1, 1], per_stage=2)] == [1, 1, 2, 2, 3, 3]
