"""How the settings that are compared look: one colour and one marker each, tiers by dash."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunStyle:
    """One compared setting's signs.

    Attributes:
        colour: of its lines (Okabe and Ito's).
        marker: plotly marker symbol.
        sign: the marker as a character, for words.
    """

    colour: str
    marker: str
    sign: str


RUNS: tuple[RunStyle, ...] = (
    RunStyle("#0072B2", "circle", "●"),
    RunStyle("#D55E00", "square", "■"),
    RunStyle("#009E73", "diamond", "◆"),
    RunStyle("#CC79A7", "triangle-up", "▲"),
)
"""By slot: as many settings are compared at once."""


def signed(slot: int, words: str) -> str:
    """``words``, already escaped, after a setting's sign in its colour."""
    style = RUNS[slot]
    return f'<span style="color:{style.colour}">{style.sign}</span> {words}'
