"""How tiers, purposes and runs look, in one place, by day and by night.

Colours are Okabe and Ito's, which people with the common colour-vision deficiencies can tell
apart; every colour comes with a second sign (dash, marker, pattern or underline). They stand out
from white and from black alike, so figures keep them in both of JupyterLab's themes.

Ink, faint ink and grid lines do change. HTML says ``var(--mskv-ink)``; plotly knows no variables,
so figures are drawn in `INK`, `FAINT` and `GRID`, and the style sheet repaints what has exactly
those colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mspeckv_widgets.charts.frame_sheet import FRAME_RULES

Placement = Literal["on-chip", "resident", "offloaded"]


@dataclass(frozen=True)
class Palette:
    """What differs between light and dark: CSS colours by use.

    Attributes:
        ink: text and axes.
        faint: captions, notes.
        grid: grid and table lines.
        paper: behind everything.
        raised: behind code and quiet buttons.
        error: behind an error's line.
        focus: the ring around what the keyboard is at.
        tints: behind text that tier 0, 1, 2 settled.
    """

    ink: str
    faint: str
    grid: str
    paper: str
    raised: str
    error: str
    focus: str
    tints: tuple[str, str, str]

    def variables(self) -> str:
        """The palette as CSS custom properties."""
        words = {
            "ink": self.ink, "faint": self.faint, "grid": self.grid, "paper": self.paper,
            "raised": self.raised, "error": self.error, "focus": self.focus,
            **{f"tint-{tier}": tint for tier, tint in enumerate(self.tints)},
        }  # fmt: skip
        return "".join(f"--mskv-{name}:{colour};" for name, colour in words.items())


LIGHT = Palette(
    "#1f2328", "#5b6370", "#e5e7eb", "#ffffff", "#f0f1f3", "#fbe3d3", "#0072b2",
    ("#fbe3d3", "#d9ecf8", "#d5f0e6"),
)  # fmt: skip
DARK = Palette(
    "#eceff2", "#aab2bd", "#3a4048", "#111111", "#24282d", "#4a2408", "#56b4e9",
    ("#55290a", "#0b3c5a", "#06442f"),
)  # fmt: skip

INK, FAINT, GRID = LIGHT.ink, LIGHT.faint, LIGHT.grid
CLEAR = "rgba(0,0,0,0)"
"""Background of figures: the panel's own shows through."""


@dataclass(frozen=True)
class TierStyle:
    """One tier's name and signs.

    Attributes:
        name: short name for legends.
        role: what the tier does, in words.
        colour: line and underline colour.
        tint: background of text the tier settled, as a CSS variable; ink is readable on it.
        dash: plotly line dash.
        marker: plotly marker symbol.
        underline: CSS line style under text the tier settled.
        underline_words: the same in words.
    """

    name: str
    role: str
    colour: str
    tint: str
    dash: str
    marker: str
    underline: str
    underline_words: str


TIERS: dict[int, TierStyle] = {
    0: TierStyle(
        "tier 0",
        "draft",
        "#D55E00",
        "var(--mskv-tint-0)",
        "dot",
        "circle",
        "dotted",
        "dotted underline",
    ),
    1: TierStyle(
        "tier 1",
        "target, retrieved KV",
        "#0072B2",
        "var(--mskv-tint-1)",
        "dash",
        "diamond",
        "dashed",
        "dashed underline",
    ),
    2: TierStyle(
        "tier 2",
        "target, full KV",
        "#009E73",
        "var(--mskv-tint-2)",
        "solid",
        "square",
        "solid",
        "solid underline",
    ),
}


@dataclass(frozen=True)
class PurposeStyle:
    """One purpose of link traffic: its words, bar colour and bar pattern."""

    words: str
    colour: str
    pattern: str


PURPOSES: dict[str, PurposeStyle] = {
    "prefill": PurposeStyle("prefill: prompt KV sent away", "#CC79A7", "x"),
    "verify": PurposeStyle("verify: KV fetched for tier 2", "#0072B2", ""),
    "flush": PurposeStyle("flush: finished blocks sent away", "#E69F00", "/"),
    "other": PurposeStyle("other: what an extension asks for", "#D55E00", "."),
}


def known(purpose: str) -> str:
    """The name under which a purpose is drawn."""
    return purpose if purpose in PURPOSES else "other"


@dataclass(frozen=True)
class PlaceStyle:
    """A placement's colour and CSS pattern in the bar of layers."""

    colour: str
    pattern: str


PLACES: dict[Placement, PlaceStyle] = {
    "on-chip": PlaceStyle("#009E73", "none"),
    "resident": PlaceStyle("#56B4E9", "repeating-linear-gradient(45deg,#0003 0 3px,#0000 3px 8px)"),
    "offloaded": PlaceStyle(
        "#E69F00", "repeating-linear-gradient(90deg,#0003 0 2px,#0000 2px 6px)"
    ),
}


def _repaint(colour: str, variable: str) -> str:
    """Rules that give whatever a figure draws in ``colour`` the theme's colour instead."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "".join(
        f'.mskv-panel .js-plotly-plot [style*="{part}: rgb({red}, {green}, {blue})"] '
        f"{{ {part}: var(--mskv-{variable}) !important; }}\n"
        for part in ("fill", "stroke")
    )


def _px(size: int) -> str:
    """A length that grows with the panel's type."""
    return f"calc({size}px * var(--mskv-scale, 1))"


STYLE_SHEET = f"""<style>
body {{ {LIGHT.variables()} }}
body[data-jp-theme-light="false"] {{ {DARK.variables()} }}
.mskv-panel {{ color: var(--mskv-ink); background: var(--mskv-paper); max-width: 100%;
  position: relative; }}
.mskv-panel .widget-label, .mskv-panel .jupyter-widgets {{ color: var(--mskv-ink); }}
.mskv-panel .widget-html-content {{ color: var(--mskv-ink); }}
.mskv-panel .lm-TabBar-tab {{ color: var(--mskv-ink) !important; }}
.mskv-panel .jupyter-button {{ color: var(--mskv-ink); background-color: var(--mskv-raised); }}
.mskv-panel .jupyter-button.mod-success, .mskv-panel .jupyter-button.mod-primary,
.mskv-panel .jupyter-button.mod-info {{ color: #ffffff; background-color: #00704f; }}
.mskv-panel .jupyter-button.mod-warning, .mskv-panel .jupyter-button.mod-danger
  {{ color: #ffffff; background-color: #a64500; }}
.mskv-panel :focus-visible {{ outline: 3px solid var(--mskv-focus); outline-offset: 1px; }}
.mskv-panel select {{ appearance: auto !important; background-image: none !important; }}
body[data-jp-theme-light="false"] .mskv-panel {{ color-scheme: dark; }}
.mskv-panel .widget-box, .mskv-panel .js-plotly-plot {{ max-width: 100%; }}
.mskv-panel .js-plotly-plot .main-svg {{ background: transparent !important; }}
.mskv-panel .js-plotly-plot rect.bg {{ fill: transparent !important; }}
{_repaint(INK, "ink")}{_repaint(FAINT, "faint")}{_repaint(GRID, "grid")}\
.mskv-title {{ font-weight: 600; font-size: {_px(14)}; margin: 6px 0 2px; line-height: 1.3; }}
.mskv-small {{ color: var(--mskv-faint); font-size: {_px(12)}; line-height: 1.35; }}
.mskv-error {{ border-left: 4px solid #D55E00; padding: 4px 10px; background: var(--mskv-error);
  color: var(--mskv-ink); line-height: 1.4; }}
.mskv-passed {{ border-left: 4px solid #009E73; padding: 4px 10px; background: var(--mskv-tint-2);
  color: var(--mskv-ink); line-height: 1.4; }}
.mskv-story {{ font: {_px(14)}/1.75 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; max-height: {_px(330)}; overflow-y: auto;
  border: 1px solid var(--mskv-grid); border-radius: 4px; padding: 8px 10px;
  background: var(--mskv-paper); color: var(--mskv-ink); }}
.mskv-story span, .mskv-key {{ color: var(--mskv-ink); border-bottom-width: 3px;
  padding-bottom: 1px; }}
.mskv-key {{ padding: 1px 4px; margin-right: 4px; white-space: nowrap; }}
.mskv-table {{ border-collapse: collapse; font-size: {_px(13)}; line-height: 1.35; width: 100%;
  color: var(--mskv-ink); }}
.mskv-table td.num {{ white-space: nowrap; }}
.mskv-table caption {{ text-align: left; color: var(--mskv-faint); font-size: {_px(12)};
  padding: 2px 6px; }}
.mskv-code {{ overflow-x: auto; margin: 6px 0; padding: 8px; line-height: 1.4; font-size: {_px(13)};
  background: var(--mskv-raised); color: var(--mskv-ink); border-radius: 4px; }}
.mskv-bar {{ display: flex; height: {_px(16)}; border: 1px solid var(--mskv-faint);
  border-radius: 3px; overflow: hidden; }}
.mskv-progress {{ width: 160px; height: 12px; vertical-align: middle; margin-left: 8px; }}
{FRAME_RULES}</style>"""
