"""Times of exits: what is between the rows measured, and files that others have damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.records.latency_table import LatencyTable, Row, find, latency_file, read, update

MACHINE = "x86_64, A Processor, 2 threads"


def row(exit_: int, gflops: float, ms: float, side: int = 64) -> Row:
    return Row((side, side), exit_, gflops, ms, 0.9 * ms, 1.1 * ms, 9)


def table(*rows: Row, machine: str = MACHINE, runtime: str = "torch 2.9", measured: str = "2026-11-27") -> LatencyTable:
    return LatencyTable(machine, runtime, "float32", measured, rows or [row(1, 2.0, 10.0), row(1, 4.0, 30.0, 96)])


@pytest.mark.parametrize(("gflops", "ms"), [(2, 10), (3, 20), (4, 30), (1, 5), (8, 60), (0, 0)])
def test_between_the_rows_and_beyond_them(gflops: float, ms: float) -> None:
    """Linear between two rows of an exit, in proportion outside of them."""
    assert table().milliseconds(1, gflops) == pytest.approx(ms)


def test_costs_of_any_shape_and_equal_ones() -> None:
    """As many times as costs; sizes of equal cost count as their mean; more never takes less, if rows say so."""
    some = table(row(1, 2.0, 10.0), row(1, 2.0, 14.0, 32), row(1, 4.0, 30.0, 96), row(2, 3.0, 50.0))
    times = some.milliseconds(1, np.linspace(0.5, 9, 12).reshape(3, 4))
    assert times.shape == (3, 4)
    assert (np.diff(times.flatten()) > 0).all()
    assert some.milliseconds(1, 2.0) == pytest.approx(12)
    with pytest.raises(ValueError, match=r"latency=latency.json: exit 3 was not measured, there are 1, 2.*src.measure"):
        some.milliseconds(3, 1.0)


def test_a_file_keeps_what_was_measured(tmp_path: Path) -> None:
    """All tables and rows come back; other schedules stand beside them and count for no time."""
    file = tmp_path / "run" / "latency.json"
    other = table(machine="a GPU")
    mine = LatencyTable(MACHINE, "torch 2.9", "float32", "2026-11-27", table().rows, {(0, 0, 6): [row(6, 1.0, 1.0)]})
    update(file, other)
    update(file, mine)
    there = read(file)
    assert [one.content() for one in there] == [other.content(), mine.content()]
    assert there[1].exits == [1]
    assert there[1].schedules == {(0, 0, 6): [row(6, 1.0, 1.0)]}


def test_measuring_again_replaces_the_same_rows(tmp_path: Path) -> None:
    """Other sizes stay, unless the runtime has another version: then all rows are of the new one."""
    file = tmp_path / "latency.json"
    update(file, table())
    update(file, table(row(1, 2.0, 11.0)))
    (there,) = read(file)
    assert [(one.size, one.ms) for one in there.rows] == [((64, 64), 11.0), ((96, 96), 30.0)]
    update(file, table(row(1, 2.0, 7.0), runtime="torch 3.0"))
    (there,) = read(file)
    assert [(one.size, one.ms) for one in there.rows] == [((64, 64), 7.0)]


def test_the_newest_table_of_this_machine_is_found() -> None:
    """Of any version of the runtime; a machine without one is told what there is, and how to measure."""
    old, new = table(measured="2026-01-31"), table(runtime="torch 2.10", measured="2026-02-01")
    others = [table(runtime="onnxruntime 1.3", measured="2027-01-01"), table(machine="a GPU")]
    assert find([old, *others, new], MACHINE, "torch", "float32") is new
    with pytest.raises(
        ValueError, match=r"no table of this machine \(b, torch, float32\).*a GPU.*python -m src.measure"
    ):
        find([old, *others], "b", "torch", "float32")
    with pytest.raises(ValueError, match="there are: none"):
        find([], MACHINE, "torch", "float32")


GOOD: dict[str, Any] = {"version": 1, "tables": [table().content()]}


def changed(**values: Any) -> dict[str, Any]:
    first, *rest = GOOD["tables"][0]["rows"]
    return {"version": 1, "tables": [{**GOOD["tables"][0], "rows": [first | values, *rest]}]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(GOOD)[:-20], "cannot be read, perhaps cut short"),
        ("", "cannot be read"),
        ([1], "no table of latencies"),
        ({"exits": {}}, "no table of latencies"),
        ({**GOOD, "version": 2}, "version 2, expected 1"),
        ({"version": 1, "tables": [5]}, "damaged"),
        ({"version": 1, "tables": [{**GOOD["tables"][0], "rows": []}]}, "without rows"),
        ({"version": 1, "tables": [{"machine": MACHINE}]}, "it lacks 'runtime'"),
        (changed(ms="fast"), "ms is 'fast', expected a number above 0"),
        (changed(ms=float("nan")), "ms is nan"),
        (changed(gflops=-1), "gflops is -1"),
        (changed(exit=True), "exit True"),
        (changed(size=[64]), "damaged"),
        (changed(size="ab"), "whole numbers from 1"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "",
)
def test_a_file_that_is_none_is_refused(content: Any, said: str, tmp_path: Path) -> None:
    """In one line that names it and says how to get a good one; it is not overwritten either."""
    file = tmp_path / "latency.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    before = file.read_text()
    for call in (lambda: read(file), lambda: update(file, table())):
        with pytest.raises(ValueError, match="latency") as error:
            call()
        assert str(file) in str(error.value)
        assert said in str(error.value)
        assert "measure" in str(error.value)
        assert "\n" not in str(error.value)
    assert file.read_text() == before


def test_a_missing_file_is_an_error_that_says_how_to_measure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file; python -m src.measure ckpt_path=FILE"):
        read(tmp_path / "latency.json")


def test_the_file_lies_in_the_run_folder(tmp_path: Path) -> None:
    """Of the checkpoint; weights from elsewhere have none."""
    assert latency_file(f"{tmp_path}/run/checkpoints/best.ckpt") == tmp_path / "run/latency.json"
    assert latency_file(f"{tmp_path}/run/model.ckpt") == tmp_path / "run/latency.json"
    assert latency_file("facebook/mask2former") is latency_file(None) is None
