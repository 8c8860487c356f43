import csv
from pathlib import Path

import pytest
from PIL import Image

from scripts import latency
from tests.test_predict import SETTINGS, save


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two models, the second with a gate."""
    shallow = [setting for setting in SETTINGS if not setting.startswith("exits=")]
    plain, gated = (save(settings, tmp_path_factory.mktemp("model")) for settings in (shallow, SETTINGS))
    gated = gated.rename(gated.with_name("beta=0.1.ckpt"))  # as sweeps call theirs
    return ["--model", "plain", str(plain), "--model", "gated", str(gated), "gate=own"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.mark.slow
def test_every_exit_and_gate_is_timed(
    models: list[str], photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As often as asked, once more to warm up, in turns; numbers are shares of the first row's."""
    calls: list[float] = []

    def clock() -> float:
        calls.append(float(len(calls) ** 2))
        return calls[-1]

    monkeypatch.setattr(latency, "clock_of", lambda device: clock)
    latency.main([str(photos), *models, "--images", "2", "--rounds", "3", "--csv", str(photos / "table.csv")])
    with (photos / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["model"], row["way"]) for row in rows] == [
        ("plain", "exit3"),
        *(("gated", way) for way in ("exit1", "exit2", "exit3", "gate")),
    ]
    assert len(calls) == 2 * 5 * 2 * (3 + 1)  # start and end of each of five, on two images, three rounds and one
    first = float(rows[0]["latency_ms"])
    assert [float(row["ratio"]) for row in rows] == pytest.approx([float(r["latency_ms"]) / first for r in rows])
    assert "2 images" in capsys.readouterr().out


@pytest.mark.slow
def test_mistakes_end_in_one_line(models: list[str], photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken image is left out while others are left; nothing to time is an error."""
    (photos / "broken").mkdir()
    (photos / "broken" / "d.png").write_bytes(b"no picture")
    for arguments, message in (
        ([str(photos / "none"), *models], "photos="),
        ([str(photos / "broken"), *models], "d.png: cannot be decoded"),
        ([str(photos), "--model", "x", "gone.ckpt"], "gone.ckpt"),
        ([str(photos), *models, "exit=7"], "exit=7"),
    ):
        with pytest.raises(SystemExit, match=message):
            latency.main(arguments)
    with pytest.raises(SystemExit):
        latency.main([str(photos), "--model", "x"])
    assert "expected a name and a checkpoint" in capsys.readouterr().err
