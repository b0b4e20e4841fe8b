"""How variants look and what they are called, wherever results are drawn.

Okabe and Ito's colours, each with a dash and a marker of its own, so that nothing depends on
colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass

INK = "#1f2328"
"""Text and axes, and what stands for plain decoding: panels repaint it where the page is dark."""
AXES = {
    "prefill": "prompt tokens",
    "resident": "resident layers",
    "on_chip": "on-chip layers",
    "new_tokens": "new tokens",
}


@dataclass(frozen=True)
class VariantStyle:
    """Words and signs of one variant; dash and marker are plotly's names."""

    words: str
    colour: str
    dash: str
    marker: str


VARIANTS: dict[str, VariantStyle] = {
    "autoregressive": VariantStyle("one token a pass, KV as floats", INK, "solid", "circle"),
    "vanilla": VariantStyle("tier 0 guesses, tier 2 checks", "#E69F00", "dot", "triangle-up"),
    "triforce": VariantStyle("three tiers, KV as floats", "#0072B2", "dash", "square"),
    "mspeckv": VariantStyle(
        "three tiers, KV quantized, fixed places", "#D55E00", "solid", "diamond"
    ),
    "mspeckv-lru": VariantStyle(
        "three tiers, KV quantized, LRU places", "#CC79A7", "dashdot", "cross"
    ),
    "mspeckv-auto": VariantStyle(
        "three tiers, KV quantized, lengths chosen", "#56B4E9", "longdashdot", "triangle-down"
    ),
    "control": VariantStyle(
        "autoregressive with all KV on the device", "#009E73", "longdash", "star"
    ),
}


def style(variant: str) -> VariantStyle:
    """A variant's; grey for one that is not known here."""
    return VARIANTS.get(variant, VariantStyle(variant, "#6b7280", "longdashdot", "x"))


def axis_words(axis: str) -> str:
    """An axis in words."""
    return AXES.get(axis, axis)
