"""Tables in Markdown."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], rules: Sequence[str] | None = None) -> str:
    """Return a table without a newline at the end.

    Args:
        rules: the alignment of each column, "---:" for numbers; null: to the left.
    """
    lines = (header, rules or ["---"] * len(header), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
