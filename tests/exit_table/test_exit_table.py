import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from src.exit_table.table import ExitTable, LabelledBatch, TableInfo, read_table, shard_file, write_shard

EXITS = [2, 3, 5]
INFO = TableInfo(
    parent="0123456789abcdef",
    source="runs/parent/last.ckpt",
    exits=EXITS,
    segmentation="panoptic",
    inputs={"mean32": 4, "std32": 2},
    split="train",
    num_images=5,
    shard_size=2,
    settings={"data": {"size": 640}, "threshold": 0.5},
)


def make_table(info: TableInfo = INFO) -> ExitTable:
    """A table of random valid values."""
    torch.manual_seed(0)
    count = info.num_images
    return ExitTable(
        info,
        torch.arange(count) * 7 + 2**40,
        [f"image-{number}.png" for number in range(count)],
        torch.rand(count, len(info.exits)),
        torch.rand(count, len(info.exits)) + 1,
        {name: torch.randn(count, dim) for name, dim in info.inputs.items()},
    )


def batch(table: ExitTable, places: list[int]) -> LabelledBatch:
    some = table.rows(torch.tensor(places))
    return LabelledBatch(some.image_ids.tolist(), some.names, some.quality, some.cost, some.inputs)


def write(folder: Path, table: ExitTable) -> Path:
    """All shards, each from batches of one image."""
    for number in range(table.info.num_shards):
        parts = [batch(table, [place]) for place in table.info.shard(number)]
        write_shard(folder, number, parts, table.info)
    return folder


def assert_equal(one: ExitTable, other: ExitTable) -> None:
    assert one.info == other.info
    assert one.names == other.names
    assert list(one.inputs) == list(other.inputs)
    ours, theirs = ([x.image_ids, x.quality, x.cost, *x.inputs.values()] for x in (one, other))
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)


def test_shards_read_back_equal(tmp_path: Path) -> None:
    """What was written in shards, the last one shorter, is read back as one table to the last bit."""
    table = make_table()
    write(tmp_path / "new" / "folder", table)
    assert_equal(read_table(tmp_path / "new" / "folder"), table)
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
        "part-00002.parquet",
    ]


def test_order_of_writing_does_not_matter(tmp_path: Path) -> None:
    """Shards written last to first, each from one batch, make the same table."""
    table = make_table()
    for number in reversed(range(INFO.num_shards)):
        write_shard(tmp_path, number, [batch(table, list(INFO.shard(number)))], INFO)
    assert_equal(read_table(tmp_path), table)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_shard_is_named(tmp_path: Path, number: int) -> None:
    """Without one of its shards, be it first or last, a table is refused with the name of that shard."""
    file = shard_file(write(tmp_path, make_table()), number)
    file.unlink()
    with pytest.raises(ValueError, match=f"1 of 3 shards are missing, the first {file.name}"):
        read_table(tmp_path)


def test_a_shard_too_many_is_named(tmp_path: Path) -> None:
    """A shard beyond the last one of the table is refused by name."""
    write(tmp_path, make_table())
    shutil.copy(shard_file(tmp_path, 2), shard_file(tmp_path, 3))
    with pytest.raises(ValueError, match=r"part-00003\.parquet is not of this table"):
        read_table(tmp_path)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def blank(file: Path) -> None:
    """Zero what comes before the footer."""
    content = file.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    file.write_bytes(content[:4] + bytes(len(content) - footer - 4) + content[-footer:])


def drop_metadata(file: Path) -> None:
    pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)


def drop_row(file: Path) -> None:
    pq.write_table(pq.read_table(file).slice(1), file)


def drop_column(file: Path) -> None:
    pq.write_table(pq.read_table(file).drop_columns(["cost"]), file)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "not a shard of an exit table"),
        (lambda file: file.write_bytes(b""), "not a shard of an exit table"),
        (lambda file: file.write_text("no Parquet at all, but some text"), "not a shard of an exit table"),
        (drop_metadata, "not a shard of an exit table"),
        (blank, "damaged"),
        (drop_row, "columns or rows differ"),
        (drop_column, "columns or rows differ"),
    ],
    ids=["truncated", "empty", "text", "no metadata", "blanked", "a row less", "a column less"],
)
def test_a_damaged_shard_is_named(tmp_path: Path, number: int, damage: Callable[[Path], Any], said: str) -> None:
    """A shard that is cut short, overwritten or lacks something is one ValueError that names it."""
    file = shard_file(write(tmp_path, make_table()), number)
    damage(file)
    with pytest.raises(ValueError, match=said) as caught:
        read_table(tmp_path)
    assert file.name in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parent": "fedcba9876543210"}, "parent 0123456789ab, there fedcba987654"),
        ({"exits": [2, 3, 6]}, r"exits \[2, 3, 5\], there \[2, 3, 6\]"),
        ({"split": "val"}, "split train, there val"),
        ({"settings": {"data": {"size": 800}, "threshold": 0.5}}, "data.size=640, there 800"),
        ({"settings": {"data": {"size": 640}}}, "threshold=0.5, there None"),
        ({"settings": {**INFO.settings, "task.quality": "loss"}}, "quality score, there loss"),
        ({"settings": {**INFO.settings, "task.mirrored": True}}, "task.mirrored=None, there True"),
    ],
)
def test_a_shard_of_another_table_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """A shard of another parent, or labelled with other settings, is refused with its name and what differs."""
    write(tmp_path, make_table())
    other = make_table(INFO._replace(**change))
    write_shard(tmp_path, 1, [batch(other, [2, 3])], other.info)
    with pytest.raises(ValueError, match=f"part-00001.parquet is of another table than the first shard: {said}"):
        read_table(tmp_path)


def test_the_same_weights_elsewhere_are_the_same_parent(tmp_path: Path) -> None:
    """Shards that differ only in where the weights came from are one table."""
    table = make_table()
    write(tmp_path, table)
    write_shard(tmp_path, 1, [batch(table, [2, 3])], INFO._replace(source="elsewhere.ckpt"))
    assert_equal(read_table(tmp_path), table)


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("quality", float("nan"), "a quality at some exits only"),
        ("quality", 1.01, r"a quality outside 0\.\.1"),
        ("quality", -0.01, r"a quality outside 0\.\.1"),
        ("cost", 0.0, "a non-positive or non-finite cost"),
        ("cost", float("nan"), "a non-positive or non-finite cost"),
        ("cost", float("inf"), "a non-positive or non-finite cost"),
        ("std32", float("inf"), "a non-finite input std32"),
        ("mean32", float("nan"), "a non-finite input mean32"),
    ],
)
def test_impossible_values_are_refused(tmp_path: Path, part: str, value: float, said: str) -> None:
    """One value that cannot be is a ValueError with the name of its image."""
    table = make_table()
    values: Tensor = table.inputs[part] if part in table.inputs else getattr(table, part)
    values[3, 1] = value
    write(tmp_path, table)
    with pytest.raises(ValueError, match=f"image-3.png has {said}"):
        read_table(tmp_path)


def test_minus_a_loss_is_a_quality_where_the_settings_say_so(tmp_path: Path) -> None:
    """It has no bounds, but has to be finite; a table that does not say what its qualities are has scores."""
    table = make_table(INFO._replace(settings={"task.quality": "loss"}))
    table.quality[1] = torch.tensor([-20.0, -3.5, 1e-6])
    assert (make_table().info.quality, table.info.quality) == ("score", "loss")
    assert_equal(read_table(write(tmp_path / "loss", table)), table)
    table.quality[1, 2] = -float("inf")
    with pytest.raises(ValueError, match=r"image-1.png has an infinite quality"):
        read_table(write(tmp_path / "infinite", table))
    other = make_table(INFO._replace(settings={"task.quality": "rank"}))
    with pytest.raises(ValueError, match=r"task.quality=rank, expected one of score, loss"):
        read_table(write(tmp_path / "other", other))


def test_the_ends_of_the_range_are_qualities(tmp_path: Path) -> None:
    """Qualities of 0 and of 1 are read."""
    table = make_table()
    table.quality[0] = 0
    table.quality[1] = 1
    assert_equal(read_table(write(tmp_path, table)), table)


def test_an_image_with_nothing_to_find(tmp_path: Path) -> None:
    """A whole row of nan is read as it is; a table of nothing else is refused."""
    table = make_table()
    table.quality[1] = float("nan")
    assert_equal(read_table(write(tmp_path, table)), table)
    table.quality[:] = float("nan")
    with pytest.raises(ValueError, match="nothing to score in any of its"):
        read_table(write(tmp_path, table))


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing fails halfway the error comes through, with no new file left and an old shard as it was."""

    def fail(_: Any, file: Path, **options: Any) -> None:
        file.write_bytes(b"PAR1 and no more")
        raise OSError("disk full")

    table = make_table()
    write_shard(tmp_path, 0, [batch(table, [0, 1])], INFO)
    before = shard_file(tmp_path, 0).read_bytes()
    monkeypatch.setattr(pq, "write_table", fail)
    for number in (0, 1):
        with pytest.raises(OSError, match="disk full"):
            write_shard(tmp_path, number, [batch(table, list(INFO.shard(number)))], INFO)
    assert list(tmp_path.iterdir()) == [shard_file(tmp_path, 0)]
    assert shard_file(tmp_path, 0).read_bytes() == before


def test_no_shards_is_no_table(tmp_path: Path) -> None:
    """A folder that is empty, not there or has only an unfinished shard is a FileNotFoundError naming it."""
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "part-00000.part").touch()
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent", "unfinished"):
        with pytest.raises(FileNotFoundError, match=name):
            read_table(tmp_path / name)


def test_rows_by_mask_and_by_index() -> None:
    """A mask selects the same images as their indices; indices give their own order; nothing is an empty table."""
    table = make_table()
    mask = torch.tensor([True, False, False, True, True])
    some = table.rows(mask)
    assert_equal(some, table.rows(torch.tensor([0, 3, 4])))
    assert len(some) == 3
    assert some.names == ["image-0.png", "image-3.png", "image-4.png"]
    assert torch.equal(some.inputs["std32"], table.inputs["std32"][mask])
    assert table.rows(torch.tensor([4, 0])).image_ids.tolist() == [2**40 + 28, 2**40]
    assert len(table.rows(torch.zeros(5, dtype=torch.bool))) == 0


def rewritten(file: Path, column: str, values: list[Any]) -> None:
    """A shard with other values in a column, and all that it says of itself."""
    table = pq.read_table(file)
    place = table.schema.get_field_index(column)
    field = table.schema.field(place)
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), file)


@pytest.mark.parametrize("value", [None, [0.5, None, 0.5]])
def test_nulls_are_refused(value: Any, tmp_path: Path) -> None:
    """Nobody labels so, and all rows after one would take the place of the one before."""
    file = shard_file(write(tmp_path, make_table()), 1)
    rewritten(file, "quality", [value, [0.1, 0.2, 0.3]])
    with pytest.raises(ValueError, match=r"part-00001\.parquet: has nulls"):
        read_table(tmp_path)


def test_a_shard_knows_its_place(tmp_path: Path) -> None:
    """Two of one size are not taken for each other."""
    write(tmp_path, make_table())
    shard_file(tmp_path, 0).rename(tmp_path / "kept")
    shard_file(tmp_path, 1).rename(shard_file(tmp_path, 0))
    (tmp_path / "kept").rename(shard_file(tmp_path, 1))
    with pytest.raises(ValueError, match=r"part-00000\.parquet: is another shard"):
        read_table(tmp_path)


def test_bytes_that_changed_are_noticed(tmp_path: Path) -> None:
    """Also where the numbers that they make could be."""
    file = shard_file(write(tmp_path, make_table()), 0)
    content, value = file.read_bytes(), make_table().cost[0, 0].numpy().tobytes()
    assert content.count(value) >= 1
    file.write_bytes(content.replace(value, make_table().cost[1, 0].numpy().tobytes()))
    with pytest.raises(ValueError, match=r"part-00000\.parquet: damaged"):
        read_table(tmp_path)
