"""Build the documentation as a static site into build/site; it opens from the disk and requests nothing from elsewhere.

The README is its first page, docs/ its manual, and the docstrings of the public modules its API pages.
Every warning is an error: a link or an anchor that leads nowhere fails the build.
"""

import ast
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "build/site_pages"
SITE = ROOT / "build/site"
PUBLIC = ("models", "losses", "metrics", "tasks", "data", "exit_table", "prediction", "exporting", "weights")
MENU = {
    "Start": ("installation", "training", "data", "weights", "prediction", "deploy"),
    "Methods": ("eco-m2f", "pro-scale", "detection", "method", "costs", "performance", "results"),
    "Runs": ("runs", "sweeps", "reports", "trainer"),
    "Develop": ("extending", "architecture", "contributing", "api/index"),
    "Look up": ("troubleshooting", "glossary", "changelog"),
}


def public_modules() -> Iterator[str]:
    """Name the modules that the API pages have, in order."""
    yield "src.predictor"
    for package in PUBLIC:
        for file in sorted((ROOT / "src" / package).rglob("*.py")):
            if file.name != "__init__.py":
                yield ".".join(file.relative_to(ROOT).with_suffix("").parts)


def collect() -> None:
    """Put README, manual, contributing and changelog side by side, with links that fit."""
    for file in (ROOT / "docs").glob("*"):
        if file.suffix == ".md":
            write(file.name, re.sub(r"\]\(\.\./([A-Z]+)\.md", lambda m: f"]({m[1].lower()}.md", file.read_text()))
        elif file.suffix == ".png":
            shutil.copy(file, PAGES)
    for name, page in (("README", "index"), ("CONTRIBUTING", "contributing"), ("CHANGELOG", "changelog")):
        text = (ROOT / f"{name}.md").read_text().replace("](docs/", "](")
        for other in ("CONTRIBUTING", "CHANGELOG"):
            text = text.replace(f"]({other}.md", f"]({other.lower()}.md")
        write(f"{page}.md", text + (menu() if page == "index" else ""))
    shutil.copy(ROOT / "CITATION.cff", PAGES)
    shutil.copytree(ROOT / "docs/site/static", PAGES / "static")


def menu() -> str:
    """Return the tables of contents that the sidebar shows."""
    parts = (
        f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(MENU[title]) + "\n```\n" for title in MENU
    )
    return "".join(parts)


def write_api() -> None:
    """Write a page for every public package, and a list of their modules with the first lines of their docstrings."""
    table = ["# API", "", "| module | content |", "|---|---|"]
    pages: dict[str, str] = {}
    for name in public_modules():
        docstring = ast.get_docstring(ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text())) or ""
        first_line = docstring.partition("\n")[0]
        page = name.split(".")[1]
        table.append(f"| [{name}]({page}.md#{name.replace('.', '').lower()}) | {first_line} |")
        section = f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n\n"
        pages[page] = pages.get(page, f"# {page}\n\n") + section
    for page, text in pages.items():
        write(f"api/{page}.md", text)
    toctree = ["", "```{toctree}", ":hidden:", "", *pages, "```", ""]
    write("api/index.md", "\n".join(table + toctree))


def write(name: str, text: str) -> None:
    """Write a page."""
    file = PAGES / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def main() -> int:
    from sphinx.cmd.build import main as sphinx_build

    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.rmtree(SITE, ignore_errors=True)
    PAGES.mkdir(parents=True)
    collect()
    write_api()
    sys.path.insert(0, str(ROOT))
    conf = str(ROOT / "docs/site")
    cache = str(PAGES.with_name("site_cache"))
    status = sphinx_build(
        ["-q", "-W", "--keep-going", "-E", "-j", "auto", "-d", cache, "-c", conf, str(PAGES), str(SITE)]
    )
    if status == 0:
        print(f"open {SITE / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
