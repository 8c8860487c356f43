from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts import prepare_coco
from tests.scripts.served import address, files_below, serving, zipped

IMAGE = bytes(range(256)) * 400


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """COCO in small: two images per split, archives nested and littered as the real ones."""
    site = tmp_path / "site"
    (site / "zips").mkdir(parents=True)
    (site / "annotations").mkdir()
    panoptic, instances = {}, {"annotations/captions_val2017.json": b"{}"}
    for split in ("train2017", "val2017"):
        images = {f"{split}/": b"", f"{split}/1.jpg": IMAGE, f"{split}/2.jpg": IMAGE}
        (site / "zips" / f"{split}.zip").write_bytes(zipped(images))
        instances[f"annotations/instances_{split}.json"] = b"{}"
        masks = {f"panoptic_{split}/{n}.png": b"mask" for n in (1, 2)}
        panoptic[f"annotations/panoptic_{split}.zip"] = zipped(masks | {f"__MACOSX/panoptic_{split}/._1.png": b"junk"})
        panoptic[f"annotations/panoptic_{split}.json"] = b"{}"
    (site / "annotations" / "annotations_trainval2017.zip").write_bytes(zipped(instances))
    (site / "annotations" / "panoptic_annotations_trainval2017.zip").write_bytes(zipped(panoptic))

    small = [
        a._replace(makes={n: min(count, 2) for n, count in a.makes.items()}, sha1=None) for a in prepare_coco.ARCHIVES
    ]
    monkeypatch.setattr(prepare_coco, "ARCHIVES", small)
    with serving(site) as server:
        yield server


def fetch(server: ThreadingHTTPServer, root: Path, *more: str) -> None:
    prepare_coco.main(["--root", str(root), "--url", address(server), *more])


EVERYTHING = {
    *(f"{split}2017/{n}.jpg" for split in ("train", "val") for n in (1, 2)),
    *(f"panoptic_{split}2017/{n}.png" for split in ("train", "val") for n in (1, 2)),
    *(f"annotations/{kind}_{split}2017.json" for kind in ("panoptic", "instances") for split in ("train", "val")),
}


def test_all_is_laid_out_as_the_readers_expect(server: ThreadingHTTPServer, tmp_path: Path):
    """Images, masks and annotations end in COCO's folders, and nothing else is left."""
    fetch(server, tmp_path / "coco")
    assert files_below(tmp_path / "coco") == EVERYTHING


def test_what_is_there_is_not_fetched_again(server: ThreadingHTTPServer, tmp_path: Path):
    """A second run asks for nothing; a run after a loss asks for what was lost."""
    fetch(server, tmp_path / "coco")
    asked = len(server.asked)
    fetch(server, tmp_path / "coco")
    assert len(server.asked) == asked
    (tmp_path / "coco" / "val2017" / "2.jpg").unlink()
    fetch(server, tmp_path / "coco")
    assert server.asked[asked:] == [("/zips/val2017.zip", None)]
    assert files_below(tmp_path / "coco") == EVERYTHING


def test_a_part_can_be_had_alone(server: ThreadingHTTPServer, tmp_path: Path):
    """With --only instances, two annotation files are all that comes."""
    fetch(server, tmp_path / "coco", "--only", "instances")
    assert files_below(tmp_path / "coco") == {f"annotations/instances_{split}2017.json" for split in ("train", "val")}


def test_a_download_goes_on_where_it_broke_off(server: ThreadingHTTPServer, tmp_path: Path):
    """Of an archive that is half there only the other half is asked for, and the whole is sound."""
    whole = (tmp_path / "site" / "zips" / "val2017.zip").read_bytes()
    part = tmp_path / "coco" / "archives" / "val2017.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(whole[:1000])
    fetch(server, tmp_path / "coco", "--only", "images", "--keep")
    assert ("/zips/val2017.zip", "bytes=1000-") in server.asked
    assert (tmp_path / "coco" / "archives" / "val2017.zip").read_bytes() == whole
    assert (tmp_path / "coco" / "val2017" / "2.jpg").read_bytes() == IMAGE


def test_too_few_files_are_noticed(server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An archive with fewer files than COCO has is reported with both numbers."""
    more = [archive._replace(makes=dict.fromkeys(archive.makes, 3)) for archive in prepare_coco.ARCHIVES]
    monkeypatch.setattr(prepare_coco, "ARCHIVES", more)
    with pytest.raises(SystemExit, match="val2017 has 2 files, expected 3"):
        fetch(server, tmp_path / "coco", "--only", "images")


def test_a_broken_archive_is_named(server: ThreadingHTTPServer, tmp_path: Path):
    """An archive that is no zip is reported by name, with what to do."""
    (tmp_path / "site" / "zips" / "val2017.zip").write_bytes(b"<html>no</html>")
    with pytest.raises(SystemExit, match=r"val2017.zip is not a whole zip archive .* Remove it and run again"):
        fetch(server, tmp_path / "coco")


def test_another_archive_than_the_released_one_is_refused(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where the checksum of an archive is known, no other is unpacked."""
    other = [archive._replace(sha1="0" * 40) for archive in prepare_coco.ARCHIVES]
    monkeypatch.setattr(prepare_coco, "ARCHIVES", other)
    with pytest.raises(SystemExit, match=r"val2017.zip has the SHA-1 .*, expected 0{40}. Remove it"):
        fetch(server, tmp_path / "coco")
    assert files_below(tmp_path / "coco") == {"archives/val2017.zip"}


def test_without_a_network_the_way_out_is_told(tmp_path: Path):
    """Where nothing answers, the message names the address and where to put the archive by hand."""
    with pytest.raises(SystemExit, match=r"127.0.0.1:9/zips/val2017.zip cannot be fetched .* put val2017.zip into"):
        prepare_coco.main(["--root", str(tmp_path), "--url", "http://127.0.0.1:9"])
