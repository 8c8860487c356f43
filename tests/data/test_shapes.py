from collections import Counter

import pytest
import torch

from src.data.shapes import SMALLEST, STUFF, Shapes


def test_a_scene_depends_on_seed_and_index_alone():
    """The same seed and index draw the same scene, in any order; another seed or index draws another."""
    scenes, again = Shapes(50, seed=3), Shapes(1000, seed=3)
    for index in (49, 7, 0):
        sample, same = scenes[index], again[index]
        assert torch.equal(sample.image, same.image)
        torch.testing.assert_close(sample.truth, same.truth, rtol=0, atol=0)
        assert not torch.equal(sample.image, scenes[index - 1 if index else 1].image)
        assert not torch.equal(sample.image, Shapes(50, seed=4)[index].image)


def test_levels_come_in_their_shares():
    """Any run of scenes has each level as often as its share says."""
    scenes = Shapes(2000, shares={"easy": 0.5, "cluttered": 0.3, "medium": 0.2})
    for start in (0, 777):
        count = Counter(scenes.level(index) for index in range(start, start + 1000))
        assert count == pytest.approx({"easy": 500, "cluttered": 300, "medium": 200}, abs=5)


def test_harder_scenes_have_more_and_smaller_things():
    """From easy to cluttered the number of things grows and their size shrinks."""
    counts, sizes = [], []
    for level in ("easy", "medium", "cluttered"):
        truths = [Shapes(20, shares={level: 1})[index].truth for index in range(20)]
        things = [truth.areas[(truth.labels >= len(STUFF)) & ~truth.crowd] for truth in truths]
        counts.append(sum(map(len, things)))
        sizes.append(torch.cat(things).median().item())
    assert counts == sorted(counts)
    assert sizes == sorted(sizes, reverse=True)


def test_every_segment_shows():
    """Areas are those of the masks, none is tiny, and all eight classes occur."""
    classes = set()
    for sample in (Shapes(60, size=48)[index] for index in range(60)):
        areas = sample.truth.masks().flatten(1).sum(1)
        assert torch.equal(areas.float(), sample.truth.areas)
        assert areas.min() >= SMALLEST
        classes |= set(sample.truth.labels.tolist())
    assert classes == set(range(8))


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_crowds_and_voids_come_in_their_shares(share: float):
    """As many scenes have a crowd, and unlabelled pixels, as asked for."""
    truths = [Shapes(100, void=share, crowd=share)[index].truth for index in range(100)]
    assert sum(bool(truth.crowd.any()) for truth in truths) == pytest.approx(100 * share, abs=3)
    holes = sum(int((truth.segments == 0).sum()) > 4 * SMALLEST for truth in truths)
    assert holes == pytest.approx(100 * share, abs=10)


@pytest.mark.parametrize("shares", [{"hard": 1.0}, {"easy": 0.0}, {"easy": -1.0, "medium": 2.0}])
def test_wrong_shares_are_named(shares: dict[str, float]):
    """Unknown levels and shares that cannot be are refused by name."""
    with pytest.raises(ValueError, match=next(iter(shares))):
        Shapes(10, shares=shares)


def test_iterating_ends():
    """A data set ends where it says."""
    assert len(list(Shapes(3))) == 3
