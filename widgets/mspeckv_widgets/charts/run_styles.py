"""How the settings that are compared look: one colour and one marker each, tiers by dash."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunStyle:
    """One compared setting's signs.

    Attributes:
        colour: of its lines; none is a tier's, and all stand out from white and from black.
        marker: plotly marker symbol.
        sign: the marker as a character, for words.
    """

    colour: str
    marker: str
    sign: str


RUNS: tuple[RunStyle, ...] = (
    RunStyle("#785EF0", "circle", "●"),
    RunStyle("#A6761D", "square", "■"),
    RunStyle("#C4608F", "diamond", "◆"),
    RunStyle("#4D8FAC", "triangle-up", "▲"),
)
"""By slot: as many settings are compared at once."""


def signed(slot: int, words: str) -> str:
    """``words``, already escaped, after a setting's sign in its colour."""
    style = RUNS[slot]
    return f'<span style="color:{style.colour}">{style.sign}</span> {words}'
