"""What a script of a moving round is made of. Times are milliseconds since the round's start.

Two things are not told by events, and drawn alike in every round: tokens take a set share of the
round's time to move, the last of them after its end (`TAIL`), and a crossing is drawn for at least
`LEAST`, as long as no other one follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mspeckv.events import Direction

STEP, FALL = 0.05, 0.09
"""Shares of a round that a token takes to appear or rise, and to fall away."""
TAIL = 0.24
"""How long, as a share of the round, settled tokens move on after its end."""
LEAST = 0.02
"""Shortest crossing that is drawn, as a share of the round."""
LINGER = 0.06
"""How long, as a share of the round, a copy that has arrived is seen."""

Kind = Literal["guessed", "said", "kept", "rejected", "dropped", "settles", "unused"]
Span = tuple[float, float]


@dataclass(frozen=True)
class Move:
    """A token chip appears, rises, falls, fades or joins the text.

    Attributes:
        kind: ``guessed`` and ``said`` appear; ``kept`` rises to ``lane``; ``rejected`` falls and
            ``dropped`` fades; ``settles`` joins the text; ``unused`` came after the run's end.
        lane: the tier in whose lane it is at the end; of one that leaves, the lane it leaves.
        beat: the happening that it is part of, by number.
    """

    kind: Kind
    at: float
    until: float
    lane: int
    beat: int


@dataclass(frozen=True)
class Chip:
    """A token that a tier put at a place of the round, and what became of it."""

    place: int
    tier: int
    token: int
    moves: tuple[Move, ...]


@dataclass(frozen=True)
class Crossing:
    """One transfer of the round.

    Attributes:
        until: until when it is drawn; at its earliest, when it arrived.
        head: the share of the way that lay behind it when the round began.
        wait: when compute stood still for it.
    """

    layer: int
    direction: Direction
    purpose: str
    bytes: int
    at: float
    arrived: float
    until: float
    head: float
    wait: Span | None


@dataclass(frozen=True)
class Slots:
    """Places of a lane that one pass of its tier is testing."""

    lane: int
    first: int
    count: int
    at: float
    until: float


@dataclass(frozen=True)
class Beat:
    """Something that happens, in words."""

    at: float
    words: str


@dataclass(frozen=True)
class Script:
    """A round as moves.

    Attributes:
        end: when the last token has settled: `TAIL` after ``ms``.
        poster: a moment that shows most: in tier 2's pass, half-way through its transfers.
        states: from when on the device does what, in words.
        crossed: from when on how many bytes have arrived, in words.
    """

    index: int
    ms: float
    end: float
    poster: float
    title: str
    chips: tuple[Chip, ...]
    crossings: tuple[Crossing, ...]
    passes: tuple[tuple[int, float, float], ...]
    slots: tuple[Slots, ...]
    beats: tuple[Beat, ...]
    states: tuple[Beat, ...]
    crossed: tuple[Beat, ...]
