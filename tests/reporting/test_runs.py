"""Run folders, whole and half written."""

from pathlib import Path

import pytest

from src.records.run_folder import finish
from src.reporting.runs import find
from tests.reporting.made_up import write_gate, write_model


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"step": 7, "exits": {"1": {"pq": 7', "cut short"),
        ("", "cut short"),
        ('{"scores": {"pq": 70.0}}', "lacks 'exits'"),
        ('{"exits": {"1": {"pq": 70.0}}}', "total_gflops"),
        ('{"exits": {"1": {"pq": "70", "total_gflops": 1}}}', "expected a number"),
        ('{"exits": [1]}', "other types"),
        ("[]", "not in the format of this version"),
        ('{"exits": {}}', "no scores"),
        ('{"exits": {"x": {"pq": 1, "total_gflops": 1}}}', "invalid literal"),
        (None, "neither scores.json nor gate.json"),
    ],
)
def test_a_bad_run_is_left_out_with_a_reason(content: str | None, why: str, tmp_path: Path) -> None:
    """In one line; the run beside it is read."""
    bad = write_model(tmp_path / "bad")
    (bad / "scores.json").write_text(content) if content is not None else (bad / "scores.json").unlink()
    write_gate(tmp_path / "good")
    runs, (skipped,) = find([tmp_path])
    assert [run.folder.name for run in runs] == ["good"]
    assert skipped.place.is_relative_to(bad)
    assert why in skipped.why
    assert "\n" not in skipped.why


def test_a_table_of_labels_is_no_run(tmp_path: Path) -> None:
    """Nor are the folders inside a run."""
    run = write_model(tmp_path / "run")
    (run / "checkpoints/.hydra").mkdir(parents=True)
    (tmp_path / "label/table").mkdir(parents=True)
    (tmp_path / "label/begun").write_text("src.label")
    runs, skipped = find([tmp_path])
    assert [one.folder for one in runs] == [run]
    assert not skipped


def test_a_job_that_was_broken_off_is_not_finished(tmp_path: Path) -> None:
    """Its scores are those so far; and what it was begun with is its command, if Hydra wrote nothing."""
    run = write_model(tmp_path / "run")
    (run / ".hydra/overrides.yaml").unlink()
    (run / "begun").write_text("src.train seed=1")
    ((one,), _) = find([run])
    assert (one.finished, one.command) == (False, "python -m src.train seed=1")
    finish(run, "all steps")
    ((one,), _) = find([run])
    assert one.finished
