"""The stage of a moving round: where everything stands, for three widths of a page.

Lengths are CSS pixels at the width a stage was laid out for; a page scales the widest one that fits
it up to its own width, so that letters only ever grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from mspeckv_widgets.panels.moving.sentences import columns, printable

WIDTHS = (340, 540, 780)
LETTER = 7.3
"""Width of a typewriter's letter."""
_GAP, _EDGE = 5.0, 8.0
_CHIP, LINE, _ROW = 24.0, 23.0, 13.0
_LONGEST = 14
"""Letters of a token in the text; longer ones are cut."""
_MOST_ROWS = 3


class Point(NamedTuple):
    """A place on the stage."""

    x: float
    y: float


class Box(NamedTuple):
    """A rectangle of the stage."""

    x: float
    y: float
    width: float
    height: float


class Piece(NamedTuple):
    """A token in the text: what is seen of it, where, and its number in the round or -1."""

    text: str
    tier: int
    line: int
    column: int
    columns: int
    fresh: int


@dataclass(frozen=True)
class Stage:
    """Where things stand.

    Attributes:
        lanes: for each tier, the top of its lane's first row of chips.
        bands: for each tier, all of its lane.
        cells: for each place of a round, where its chip stands in a lane.
        chip: a chip's size.
        fit: letters of a token that a chip shows.
        text: the settled text; its lines are `LINE` high.
        host: the box of host memory.
        device: the device's.
        tile: size of a layer's tile.
        spots: for each layer, its tile's corner in either box.
        pipe: the link, from its host's end.
        clock: rows of the round's clock, one per tier and the link's.
        rows: what these are, from the top.
    """

    width: float
    height: float
    lanes: dict[int, float]
    bands: dict[int, Box]
    cells: tuple[Point, ...]
    chip: Point
    fit: int
    text: Box
    host: Box
    device: Box
    tile: Point
    spots: tuple[Point, ...]
    pipe: Box
    clock: Box
    rows: tuple[str, ...]

    @property
    def wide(self) -> bool:
        """Whether names stand left of what they name, not above."""
        return self.width >= WIDTHS[1]

    @property
    def tally(self) -> Point:
        """Where it says how much has crossed: under the link, or in the host's box."""
        if self.wide:
            return Point(self.pipe.x + self.pipe.width / 2, self.pipe.y + 50)
        return Point(self.host.x + self.host.width / 2, self.host.y + self.host.height - 8)

    @property
    def letters(self) -> int:
        """Letters of a line of text."""
        return int((self.text.width - 12) / LETTER)


def lay_out(
    width: float, layers: int, places: int, tiers: Sequence[int], lines: int | None = None
) -> Stage:
    """A stage for rounds of at most ``places`` tokens among ``tiers``, and ``layers`` tiles."""
    wide = width >= WIDTHS[1]
    left = 146.0 if wide else _EDGE + 4
    room, above = width - left - _EDGE - 4, 0.0 if wide else 17.0
    per_row = max(min(places, int(room // 62)), ceil(places / _MOST_ROWS), 4)
    pitch = min(room / per_row, 92.0)
    rows = ceil(places / per_row)
    cells = tuple(
        Point(left + (place % per_row) * pitch, place // per_row * (_CHIP + _GAP))
        for place in range(places)
    )
    lanes, bands, y = dict[int, float](), dict[int, Box](), 2.0
    tall = rows * (_CHIP + _GAP) + 9 + above
    tall = max(tall, 38.0)
    for tier in sorted(tiers, reverse=True):
        bands[tier] = Box(2, y, width - 4, tall)
        lanes[tier] = y + 7 + above
        y += tall + 4
    y += 4 + above
    lines = lines or (2 if wide else 3)
    text = Box(left - 6 if wide else 2, y, width - (left - 6 if wide else 2) - 2, lines * LINE + 8)
    y += text.height + 12
    link = 96.0 + 0.12 * width if wide else 64.0
    side = (width - 4 - link) / 2
    per = max(6 if not wide else 8, ceil(layers / 6))
    step = (side - 12) / per
    high = min(20.0, max(step * 0.75, 10.0)) + 4
    grid = ceil(layers / per) * high
    spots = tuple(
        Point(8 + layer % per * step, 24 + layer // per * high) for layer in range(layers)
    )
    host = Box(2, y, side, grid + 64)
    device = Box(width - 2 - side, y, side, grid + 64)
    pipe = Box(2 + side, y + 24 + grid / 2 - 16, link, 32)
    y += host.height + 14
    names = (*(f"tier {tier}" for tier in sorted(tiers, reverse=True)), "link")
    start = left if wide else 52.0
    clock = Box(start, y, width - start - _EDGE, len(names) * _ROW)
    y += clock.height + 20
    fit = max(int((pitch - _GAP - 8) / LETTER), 0)
    return Stage(
        width, y, lanes, bands, cells, Point(pitch - _GAP, _CHIP), fit, text, host, device,
        Point(step - 3, high - 4), spots, pipe, clock, names,
    )  # fmt: skip


def cut(text: str, most: int) -> str:
    """``text``, or its beginning and a mark where it is longer than ``most`` letters."""
    if columns(text) <= most:
        return text
    while text and columns(text) > most - 1:
        text = text[:-1]
    return f"{text}…" if most > 0 else ""


def write(
    pieces: Sequence[tuple[str, int]], fresh: int, letters: int, lines: int
) -> tuple[Piece, ...]:
    """Tokens on the last ``lines`` lines of ``letters`` letters each.

    Args:
        pieces: texts and tiers of tokens, the last ``fresh`` of them the round's own.
    """
    placed: list[Piece] = []
    line = column = 0
    for index, (text, tier) in enumerate(pieces):
        shown = cut(printable(text), _LONGEST)
        size = columns(shown)
        if column and column + size > letters:
            line, column = line + 1, 0
        number = index - (len(pieces) - fresh)
        placed.append(Piece(shown, tier, line, column, size, max(number, -1)))
        column += size
    first = max(line + 1 - lines, 0)
    return tuple(
        piece._replace(line=piece.line - first)
        for piece in placed
        if piece.line >= first or piece.fresh >= 0
    )


def lines_needed(written: Sequence[Piece]) -> int:
    """Lines that a round's own tokens take."""
    own = {piece.line for piece in written if piece.fresh >= 0}
    return len(own)


def spot(stage: Stage, piece: Piece) -> Point:
    """Where a token of the text begins, at the top of its line."""
    return Point(
        stage.text.x + 6 + piece.column * LETTER, stage.text.y + 4 + max(piece.line, 0) * LINE
    )
