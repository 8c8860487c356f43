"""README and docs: links lead somewhere, commands and settings exist, and the worked examples run."""

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.*)$", re.MULTILINE)
GROUP = re.compile(r"^([+~]?[a-z_]+(?:/[a-z_]+)*(?:@[a-z_.]+)?)=(.+)$")
GROUPS = {str(folder.relative_to(ROOT / "conf")) for folder in (ROOT / "conf").rglob("*") if folder.is_dir()}
ids = [page.relative_to(ROOT).as_posix() for page in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=ids)


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text())


def code(page: Path) -> str:
    """Everything of a page that is code: blocks, and `code` in the text."""
    text = page.read_text()
    blocks = [match[3] for match in FENCE.finditer(text)]
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", FENCE.sub("", text))])


def anchors(page: Path) -> set[str]:
    """What links to headings of a page may name, as GitHub and the site spell it."""
    names = set()
    for heading in HEADING.findall(prose(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        names.add(re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-"))
    return names


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    """Files that exist, and headings that their pages have."""
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@every_page
def test_commands_exist(page: Path) -> None:
    """Every module that is run, every target of make, every file of the project."""
    text = code(page)
    for name in re.findall(r"-m ((?:src|scripts)\.\w+)", text):
        assert (ROOT / f"{name.replace('.', '/')}.py").is_file(), name
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in re.findall(r"(?:^|\n)make ([a-z-]+)", text):
        assert name in targets, name
    for file, names in re.findall(r"\b((?:src|scripts|tests|conf|notebooks)/[\w/.]+)(?:: ([\w.]+))?", text):
        assert (ROOT / file).exists(), file
        for name in names.split(".") if file.endswith(".py") else ():
            assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), f"{file}: {name}"


def shown(page: Path, folder: str) -> set[str]:
    """Names of the configuration files that a page itself writes into a group."""
    return set(re.findall(rf"`my_conf/{folder}/(\w+)\.yaml`", page.read_text()))


@every_page
def test_options_of_groups_exist(page: Path) -> None:
    """`data=coco_panoptic` needs conf/data/coco_panoptic.yaml; words in capitals stand for something else."""
    for word in re.split(r"[\s'\"]+", code(page)):
        match = GROUP.match(word.rstrip(",;.)"))
        group = match and match[1].lstrip("+~").partition("@")[0]
        if not match or group not in GROUPS:
            continue
        for option in match[2].strip("[]").split(","):
            file = ROOT / "conf" / group / f"{option}.yaml"
            if re.fullmatch(r"[a-z]\w+", option) and option not in ("null", "mine") and not option.endswith("_"):
                assert file.is_file() or option in shown(page, group), word


def test_the_readme_is_short() -> None:
    """A first screen and quick starts; the rest is in docs/."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_readme_and_the_menu_have_every_page() -> None:
    """So that a reader finds it, here and in the site."""
    names = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert names == set(re.findall(r"\(docs/([\w-]+)\.md\)", (ROOT / "README.md").read_text()))
    menu = {page for pages in site().MENU.values() for page in pages}
    assert names | {"contributing", "changelog", "api/index"} == menu


def blocks(page: str, language: str) -> list[str]:
    """Code blocks of a language."""
    return [match[3] for match in FENCE.finditer(page) if match[2] == language]


def files(page: str) -> Iterator[tuple[str, str]]:
    """Name and content of each file that a page shows: a block after a line that ends in its name and a colon."""
    for match in re.finditer(r"`([\w./]+)`:\n\n```(?:python|yaml)\n(.*?)```", page, re.DOTALL):
        yield match[1], match[2]


# Runs commands `python FILE` and `python -m MODULE` one after the other in one process, which imports torch once.
RUNNER = """
import runpy, shlex, sys
for line in sys.stdin.read().splitlines():
    words = shlex.split(line)[1:]
    print("$", line, flush=True)
    module = words[0] == "-m"
    sys.argv = words[1:] if module else words
    try:
        if module:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.mark.slow
def test_the_examples_of_extending_run(tmp_path: Path) -> None:
    """The page's files in an empty folder, and its commands one after the other."""
    page = (ROOT / "docs/extending.md").read_text()
    for name, text in files(page):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    commands = [line for block in blocks(page, "bash") for line in block.splitlines() if line.startswith("python ")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input="\n".join(commands),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    with (tmp_path / "runs/discs/metrics.csv").open() as file:
        assert any(row.get("val/pixel_accuracy") for row in csv.DictReader(file))
    assert "gate" in json.loads((tmp_path / "runs/gate_scores/scores.json").read_text())


def site() -> Any:
    """The module that builds the site; it needs nothing beyond Python until it does."""
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "docs/site/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_api_pages_follow_the_tree() -> None:
    """Every public module is on one."""
    assert {"src.predictor", "src.models.encoder", "src.losses.criterion"} <= set(site().public_modules())
