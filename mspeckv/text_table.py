"""The one printer of tables: text cells in aligned columns, or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(
    rows: Sequence[Sequence[str]], *, left: int, gap: str = "  ", least: Sequence[int] = ()
) -> list[str]:
    """Lines of text, columns one under the other.

    Args:
        rows: cells, as many in each row; heads are a row like any other.
        left: so many columns, the first ones, are flush left, the others flush right.
        gap: what stands between columns.
        least: widths that columns have at least, from the first on.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for place, width in enumerate(least):
        widths[place] = max(widths[place], width)
    return [
        gap.join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Lines of a Markdown table; the first ``left`` columns are flush left, the others right."""
    rules = ["---" if place < left else "---:" for place in range(len(heads))]
    return [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in (heads, rules, *rows)
    ]
