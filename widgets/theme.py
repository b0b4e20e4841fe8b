"""How tiers, purposes and runs look, in one place.

Colours are Okabe and Ito's, which people with the common colour-vision deficiencies can tell
apart; every colour comes with a second sign (dash, marker, pattern or underline).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Placement = Literal["on-chip", "resident", "offloaded"]

INK = "#1f2328"
FAINT = "#6b7280"
GRID = "#e5e7eb"


@dataclass(frozen=True)
class TierStyle:
    """One tier's name and signs.

    Attributes:
        name: short name for legends.
        role: what the tier does, in words.
        colour: line and underline colour.
        tint: background of text the tier settled, light enough for dark ink.
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
        "tier 0", "draft", "#D55E00", "#fbe3d3", "dot", "circle", "dotted", "dotted underline"
    ),
    1: TierStyle(
        "tier 1",
        "target, retrieved KV",
        "#0072B2",
        "#d9ecf8",
        "dash",
        "diamond",
        "dashed",
        "dashed underline",
    ),
    2: TierStyle(
        "tier 2",
        "target, full KV",
        "#009E73",
        "#d5f0e6",
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
    "retrieval": PurposeStyle("retrieval: chunks for tier 1", "#56B4E9", "."),
}


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


@dataclass(frozen=True)
class PastStyle:
    """How a run before the current one is overlaid: faded, each age with its own dash."""

    colour: str
    dash: str
    opacity: float


PAST: tuple[PastStyle, ...] = (
    PastStyle("#444444", "dash", 0.60),
    PastStyle("#666666", "dot", 0.50),
    PastStyle("#888888", "dashdot", 0.45),
)

STYLE_SHEET = f"""<style>
.mskv-panel {{ color: {INK}; background: #ffffff; }}
.mskv-panel .widget-label, .mskv-panel .jupyter-widgets {{ color: {INK}; }}
.mskv-title {{ font-weight: 600; font-size: 14px; margin: 6px 0 2px; line-height: 1.3; }}
.mskv-small {{ color: {FAINT}; font-size: 12px; line-height: 1.35; }}
.mskv-error {{ border-left: 4px solid #D55E00; padding: 4px 10px; background: #fbe3d3;
  line-height: 1.4; }}
.mskv-story {{ font: 14px/1.75 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; max-height: 330px; overflow-y: auto; border: 1px solid {GRID};
  border-radius: 4px; padding: 8px 10px; background: #ffffff; color: {INK}; }}
.mskv-story span, .mskv-key {{ color: {INK}; border-bottom-width: 3px; padding-bottom: 1px; }}
.mskv-key {{ padding: 1px 4px; margin-right: 4px; white-space: nowrap; }}
.mskv-table {{ border-collapse: collapse; font-size: 13px; line-height: 1.35; width: 100%;
  color: {INK}; }}
.mskv-table th, .mskv-table td {{ border-bottom: 1px solid {GRID}; padding: 2px 8px;
  text-align: left; vertical-align: top; }}
.mskv-table td.num, .mskv-table th.num {{ text-align: right;
  font-variant-numeric: tabular-nums; white-space: nowrap; }}
.mskv-table caption {{ text-align: left; color: {FAINT}; font-size: 12px; padding: 2px 8px; }}
.mskv-scroll {{ overflow-x: auto; }}
.mskv-bar {{ display: flex; height: 16px; border: 1px solid {FAINT}; border-radius: 3px;
  overflow: hidden; }}
.mskv-progress {{ width: 160px; height: 12px; vertical-align: middle; margin-left: 8px; }}
</style>"""
