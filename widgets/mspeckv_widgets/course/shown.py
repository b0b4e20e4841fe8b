"""What a cell of the course shows: HTML where that is possible, plain text elsewhere."""

from __future__ import annotations

import html

from mspeckv_widgets.charts.theme import STYLE_SHEET


class Shown:
    """Something to display.

    Args:
        body: as HTML; it stands in a panel of the project's style.
        text: the same as plain text.
    """

    def __init__(self, body: str, text: str) -> None:
        self._body, self._text = body, text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return f'{STYLE_SHEET}<div class="mskv-panel">{self._body}</div>'


def line(words: str, kind: str = "mskv-small") -> Shown:
    """One line that a screen reader speaks."""
    return Shown(f'<div class="{kind}" role="status">{html.escape(words)}</div>', words)
