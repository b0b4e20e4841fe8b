"""The one printer of tables: text cells in aligned columns, or as Markdown."""

from __future__ import annotations

from collections.abc import Container, Sequence

Cells = Sequence[Sequence[str]]
"""Rows of text, as many in each."""


def aligned(
    rows: Cells, *, left: Container[int], gap: str = "  ", least: Sequence[int] = ()
) -> list[str]:
    """Lines of text, columns one under the other.

    Args:
        rows: heads are one like any other.
        left: places of the columns that are flush left, such as ``range(2)``; others are right.
        gap: what stands between columns.
        least: widths that columns have at least, from the first on.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for place, width in enumerate(least):
        widths[place] = max(widths[place], width)
    return [
        gap.join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown(heads: Sequence[str], rows: Cells, *, left: Container[int]) -> list[str]:
    """Lines of a Markdown table; arguments as of `aligned`."""
    rules = ["---" if place in left else "---:" for place in range(len(heads))]
    return [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in (heads, rules, *rows)
    ]
