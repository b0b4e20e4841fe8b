"""Where everything of a moving round is at a moment. The page's own script does the same sums."""

from __future__ import annotations

from dataclasses import dataclass

from mspeckv_widgets.panels.moving.parts import LINGER, Chip, Crossing, Script
from mspeckv_widgets.panels.moving.stage import LETTER, Piece, Point, Stage, spot


@dataclass(frozen=True)
class Pose:
    """Where a chip is at a moment, how large and how plain to see; its ghost stays in a lane."""

    middle: Point
    opacity: float
    scale: float = 1.0
    turn: float = 0.0
    ghost: float = 0.0
    written: float = 0.0


def _share(at: float, until: float, now: float) -> float:
    """How much of a move is done, gently begun and ended."""
    done = min(max((now - at) / (until - at), 0.0), 1.0) if until > at else float(now >= at)
    return done * done * (3 - 2 * done)


def in_lane(stage: Stage, place: int, lane: int) -> Point:
    """The middle of a chip's place in a lane."""
    cell, size = stage.cells[place], stage.chip
    return Point(cell.x + size.x / 2, stage.lanes[lane] + cell.y + size.y / 2)


def pose(stage: Stage, chip: Chip, home: Point | None, now: float) -> Pose:
    """A chip at a moment; ``home`` is the middle of its place in the text, if it gets there."""
    here = Pose(in_lane(stage, chip.place, chip.moves[0].lane), 0.0)
    for move in chip.moves:
        done = _share(move.at, move.until, now)
        if done == 0.0:
            break
        x, y = here.middle
        if move.kind in ("guessed", "said"):
            here = Pose(here.middle, done, 0.6 + 0.4 * done)
        elif move.kind == "kept":
            to = in_lane(stage, chip.place, move.lane)
            here = Pose(Point(x + (to.x - x) * done, y + (to.y - y) * done), 1.0)
        elif move.kind == "rejected":
            here = Pose(Point(x, y + 44 * done), 1 - done, 1.0, 16 * done, done)
        elif move.kind == "dropped":
            here = Pose(Point(x, y + 8 * done), 1 - done, 1.0, 0.0, done)
        elif move.kind == "settles" and home is not None:
            to = Point(x + (home.x - x) * done, y + (home.y - y) * done)
            written = max(0.0, 4 * done - 3)
            here = Pose(to, 1 - written, 1.0, 0.0, 0.0, written)
        else:
            here = Pose(here.middle, 1 - done)
    return here


def followed(script: Script, chip: Chip, now: float) -> bool:
    """Whether another token has been put where a chip left its ghost."""
    later = script.chips[script.chips.index(chip) + 1 :]
    spot = chip.place, chip.moves[-1].lane
    return any((c.place, c.moves[0].lane) == spot and c.moves[0].at < now for c in later)


def on_way(stage: Stage, crossing: Crossing, ms: float, now: float) -> tuple[Point, float]:
    """The middle of a crossing tile in a round of ``ms``, and how plain it is to see.

    It is unseen until it sets out, and fades once it has arrived.
    """
    offset, tile, pipe = stage.spots[crossing.layer], stage.tile, stage.pipe
    ends = [
        Point(box.x + offset.x + tile.x / 2, box.y + offset.y + tile.y / 2)
        for box in (stage.host, stage.device)
    ]
    inner = [Point(pipe.x + 12, pipe.y + 16), Point(pipe.x + pipe.width - 12, pipe.y + 16)]
    way = [ends[0], *inner, ends[1]]
    if crossing.direction == "to_host":
        way.reverse()
    span = crossing.until - crossing.at
    done = crossing.head + (1 - crossing.head) * (now - crossing.at) / span if span else 1.0
    done = min(max(done, 0.0), 1.0)
    seen = 1 - _share(crossing.until, crossing.until + LINGER * ms, now)
    seen = seen if now >= crossing.at else 0.0
    leg = 0 if done < 0.2 else 1 if done < 0.8 else 2
    begin, length = ((0.0, 0.2), (0.2, 0.6), (0.8, 0.2))[leg]
    part = (done - begin) / length
    a, b = way[leg], way[leg + 1]
    return Point(a.x + (b.x - a.x) * part, a.y + (b.y - a.y) * part), seen


def settled_middle(stage: Stage, piece: Piece) -> Point:
    """The middle of a token in the text."""
    at = spot(stage, piece)
    return Point(at.x + LETTER * piece.columns / 2, at.y + 10)
