"""The style sheets of a moving round: of its picture, and of the page around it."""

from __future__ import annotations

from mspeckv_widgets.charts.theme import LIGHT, TIERS

_DASHES = {"dotted": "1.5 3", "dashed": "6 3", "solid": "none"}


def variable(name: str, by_day: str) -> str:
    """A colour of the project's style sheet, or the one by day where that is not on the page."""
    return f"var(--mskv-{name},{by_day})"


_INK, _FAINT = variable("ink", LIGHT.ink), variable("faint", LIGHT.faint)
_GRID, _PAPER = variable("grid", LIGHT.grid), variable("paper", LIGHT.paper)
SVG_STYLE = "".join(
    [
        f".mskv-mr text{{fill:{_INK};font:12px system-ui,sans-serif}}"
        f".mskv-mr .faint{{fill:{_FAINT}}}.mskv-mr .strong{{font-weight:600}}"
        ".mskv-mr .small{font-size:11px}"
        ".mskv-mr .mono{font:12.2px ui-monospace,Menlo,Consolas,monospace;white-space:pre}"
        ".mskv-mr .end{text-anchor:end}.mskv-mr .mid{text-anchor:middle}"
        f".mskv-mr .band{{fill:{_PAPER};stroke:{_GRID}}}.mskv-mr .lit{{opacity:0}}"
        f".mskv-mr .box{{fill:none;stroke:{_FAINT};stroke-width:1.5}}"
        f".mskv-mr .pipe{{fill:{_GRID}}}.mskv-mr .empty{{fill:none;stroke:{_FAINT};"
        "stroke-dasharray:1 3}.mskv-mr .tile text{fill:#111;font-size:11px}"
        ".mskv-mr .tile rect{stroke:#0006}"
        f".mskv-mr .rejected,.mskv-mr .dropped{{fill:{_FAINT}}}"
        ".mskv-mr .rejected{text-decoration:line-through 2px}"
        f".mskv-mr .slot{{fill:none;stroke:{_INK};stroke-width:1.5;stroke-dasharray:3 3}}"
        f".mskv-mr .wait{{fill:none;stroke:{_INK};stroke-width:2.5}}"
        f".mskv-mr .hand{{stroke:{_INK};stroke-width:1.5}}.mskv-mr .cross{{fill:#E69F00}}"
    ]
    + [
        f".mskv-mr .t{tier} rect{{fill:{variable(f'tint-{tier}', LIGHT.tints[tier])};"
        f"stroke:{style.colour};stroke-width:2;stroke-dasharray:{_DASHES[style.underline]}}}"
        f".mskv-mr .t{tier} line{{stroke:{style.colour};stroke-width:3;"
        f"stroke-dasharray:{_DASHES[style.underline]}}}"
        f".mskv-mr .p{tier}{{fill:{style.colour}}}"
        for tier, style in TIERS.items()
    ]
)
PAGE_STYLE = f"""
.mskv-mr {{ color: {_INK}; max-width: 1240px; }}
.mskv-big .mskv-mr {{ max-width: none; }}
.mskv-mr svg {{ display: block; width: 100%; max-height: 78vh; }}
.mskv-mr-stage {{ border-radius: 6px; }}
.mskv-mr-words {{ min-height: 2.7em; margin: 4px 0; line-height: 1.35;
  font-size: calc(16px * var(--mskv-scale, 1)); }}
.mskv-mr-bar {{ display: flex; flex-wrap: wrap; gap: 4px 8px; align-items: center; }}
.mskv-mr-bar .jupyter-button {{ width: auto; margin: 0; }}
.mskv-mr-bar label {{ display: flex; align-items: center; gap: 6px; font-size: 13px; }}
.mskv-mr-bar input {{ width: 130px; }}
.mskv-big .mskv-mr-bar label {{ font-size: 20px; }}
.mskv-big .mskv-mr-bar select {{ max-width: none; }}
.mskv-mr-bar select {{ font: inherit; color: {_INK}; background: {_PAPER}; max-width: 160px; }}
.mskv-mr-heard {{ position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap; }}
.mskv-mr-note {{ color: {_FAINT}; font-size: 12px; line-height: 1.4; margin-top: 4px; }}
.mskv-big .mskv-mr-note {{ font-size: 20px; }}
"""
