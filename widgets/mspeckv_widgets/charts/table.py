"""A table of words and numbers as HTML, and bytes as people read them."""

from __future__ import annotations

import html
from collections.abc import Sequence


def readable_bytes(count: float) -> tuple[str, str]:
    """A number of bytes as value and unit, in powers of 1000."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.2f}", unit
    return f"{count:.0f}", "B"


def short_bytes(count: float) -> str:
    """A number of bytes in three digits, such as ``918 KB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def table_html(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], text: int) -> str:
    """An HTML table whose first ``text`` columns are words and whose others are numbers."""
    kinds = ["" if place < text else ' class="num"' for place in range(len(heads))]
    head = "".join(
        f'<th scope="col"{kind}>{html.escape(name)}</th>'
        for kind, name in zip(kinds, heads, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{html.escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    # On a narrow screen the table scrolls in its box, which the keyboard must be able to reach.
    return (
        f'<div class="mskv-scroll" tabindex="0" role="region" aria-label="{html.escape(caption)}">'
        f'<table class="mskv-table"><caption>{html.escape(caption)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
