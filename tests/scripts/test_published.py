"""The table of published costs."""

import pytest

from scripts.published import COUNTED, EXITS, MODELS, PIXEL_DECODERS, PRINTED, Row, counted, papers, parts


@pytest.mark.slow
def test_every_row_is_compared_with_what_is_counted() -> None:
    """Given the right counts, all differences vanish; each model of the table is one that is counted."""
    assert COUNTED.keys() | PIXEL_DECODERS.keys() | PRINTED.keys() <= MODELS.keys()
    names = ("Mask2Former, Swin-T, Cityscapes", *PRINTED)
    costs = {name: counted(*MODELS[name]) for name in names}
    whole = {name: costs.get(name, costs["Mask2Former, Swin-T, Cityscapes"]) for name in MODELS}
    rows = [row for row in [*parts(whole), *papers(whole)] if row.model in costs or "ECO" in row.model]
    assert len(rows) == 5 + 3 + len(EXITS) + 2 * 2
    assert all(row.ours == pytest.approx(row.theirs, rel=2e-4 if row.theirs != 132 else 4e-3) for row in rows)


def test_differences_are_said_in_per_cent_or_points() -> None:
    """A cost is compared by its ratio, a saving by its difference, and what nobody published by nothing."""
    assert Row("m", "total", 200, "s", 201).cells() == ["m", "total", "200", "s", "201.000", "+0.500 %"]
    assert Row("m", "change", -52, "s", -51.9, True).cells() == ["m", "change", "-52 %", "s", "-51.9 %", "+0.1 pts"]
    assert Row("m", "share", None, "", 47, True).cells() == ["m", "share", "", "", "47.0 %", ""]
