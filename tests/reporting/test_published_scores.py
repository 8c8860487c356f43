"""Published figures beside ours."""

from types import SimpleNamespace
from typing import Any

from src.reporting.page import published
from src.reporting.published import PUBLISHED
from src.reporting.table import rows_of_published


def panel(data_set: str, quality: str) -> Any:
    return SimpleNamespace(data_set=data_set, quality=quality)


def test_another_measure_than_ours_is_said_where_they_stand_side_by_side() -> None:
    """Cityscapes' AP, in the page and in the table; nothing of what is measured alike."""
    cityscapes, coco = panel("Cityscapes val, instance", "ap"), panel("COCO val2017, instance", "ap")
    shown = published(cityscapes)
    assert shown.count("Cityscapes&#x27; own AP, which integrates the precision-recall curve as it is") == 1
    assert all("own AP" in row["measure"] for row in rows_of_published([cityscapes]))
    assert "own AP" not in published(coco)
    assert not any("measure" in row for row in rows_of_published([coco]))
    assert {one.data_set for one in PUBLISHED if one.measure} == {"Cityscapes val, instance"}
