"""The site's style sheet: the lab's colours by day and by night, and the pages' own rules."""

from __future__ import annotations

from pathlib import Path

from mspeckv_widgets.charts.theme import DARK, LIGHT
from mspeckv_widgets.panels.moving.style import PAGE_STYLE, SVG_STYLE


def style_sheet() -> str:
    """CSS of every page; the picture of a round has rules of its own."""
    own = (Path(__file__).parent / "pages" / "site.css").read_text(encoding="utf-8")
    night = DARK.variables() + "color-scheme:dark;"
    return (
        f":root{{{LIGHT.variables()}color-scheme:light;}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{night}}}}}\n"
        f":root[data-theme=dark]{{{night}}}\n"
        f"@media print{{:root:not(#day){{{LIGHT.variables()}color-scheme:light;}}}}\n"
        f"{own}\n{SVG_STYLE}\n{PAGE_STYLE}"
    )
