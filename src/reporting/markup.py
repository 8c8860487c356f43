"""Pieces of HTML that several parts of a page are made of."""

from collections.abc import Iterable
from html import escape


def details(summary: str, content: str, is_open: bool = False) -> str:
    """Return an element that unfolds; summary and content are HTML."""
    state = " open" if is_open else ""
    return f"<details{state}><summary>{summary}</summary>{content}</details>"


def table(header: Iterable[str], body: str, css_class: str = "") -> str:
    """Return a table that scrolls sideways; the header is plain text, the body HTML."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in header)
    return f'<div class="wide"><table{attribute(css_class)}><thead><tr>{cells}</tr></thead>{body}</table></div>'


def row(cells: Iterable[str], css_class: str = "") -> str:
    """Return a row of a table; cells are HTML."""
    return f"<tr{attribute(css_class)}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def attribute(css_class: str) -> str:
    return f' class="{css_class}"' if css_class else ""
