"""What is written into the live charts: their titles, and a name at the end of each line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mspeckv_widgets.charts.figure import BIG, LARGE
from mspeckv_widgets.charts.theme import INK

HEIGHT = 322
TRAFFIC, TIME, KEPT = 1, 2, 3
ROWS = (TRAFFIC, TIME, KEPT)
DOMAINS = {TRAFFIC: (0.66, 0.94), TIME: (0.30, 0.58), KEPT: (0.0, 0.22)}
MARGIN = {"l": 44, "r": 8, "t": 4, "b": 34}
BELOW = 0.05
"""A chart reaches so much of its height below 0."""
_LINE, _LONG = 13, 22
"""A line of a label is so many pixels high, and holds so many letters."""


@dataclass(frozen=True)
class Room:
    """How high the figure is, in pixels, and whether its type is a projector's."""

    height: float = HEIGHT
    big: bool = False

    def type(self, usual: float) -> float:
        """A size of type, in pixels."""
        return LARGE if self.big else usual

    def high(self, row: int) -> float:
        """Pixels from the bottom of a chart to its top."""
        low, top = DOMAINS[row]
        edges = (MARGIN["t"] + MARGIN["b"]) * (BIG if self.big else 1)
        return (top - low) * (self.height - edges)


@dataclass(frozen=True)
class End:
    """A line's last point, and its name, perhaps `in_lines`."""

    x: float
    y: float
    words: str


def title(room: Room, row: int, words: str) -> dict[str, Any]:
    """A chart's title, above it."""
    return {
        "text": f"<b>{words}</b>", "xref": "paper", "yref": "paper", "x": 0,
        "y": DOMAINS[row][1], "xanchor": "left", "yanchor": "bottom", "showarrow": False,
        "font": {"size": room.type(12), "color": INK},
    }  # fmt: skip


def labels(room: Room, row: int, ends: Sequence[End], high: float) -> list[dict[str, Any]]:
    """Names at lines' ends, pushed apart where they would lie on one another.

    Where they need more height than their chart has, each is cut to its first part. The pointer
    shows the whole name, and so do the bars under the charts.

    Args:
        room: the figure's.
        row: which chart.
        ends: of its lines.
        high: value at its top.
    """
    pixels, line = room.high(row) / (1 + BELOW) / high, room.type(11) * _LINE / 11
    whole = sorted(ends, key=lambda end: (end.y, end.words))
    fit = sum(_lines(end) for end in whole) * line <= high * pixels
    ranked = whole if fit else [_cut(end) for end in whole]
    sizes = [line * _lines(end) for end in ranked]
    # a second line of a label stands above the axis, not in the next chart
    middles = [
        max(end.y * pixels, (size - line) / 2) for end, size in zip(ranked, sizes, strict=True)
    ]
    places = spread_out(middles, sizes, high * pixels)
    return [
        _note(room, row, end, place - end.y * pixels, whole=named.words)
        for end, place, named in zip(ranked, places, whole, strict=True)
    ]


def in_lines(words: str, most: int = _LONG) -> str:
    """A long name, without markup, in lines that are broken at commas and short enough to fit."""
    first, *rest = words.split(", ")
    lines = [first]
    for part in rest:
        if len(f"{lines[-1]}, {part}") <= most:
            lines[-1] += f", {part}"
        else:
            lines[-1] += ","
            lines.append(part)
    return "<br>".join(lines)


def spread_out(middles: Sequence[float], sizes: Sequence[float], top: float) -> list[float]:
    """Rising ``middles`` of labels so high, moved little, apart, and under ``top`` if they can."""
    out: list[float] = []
    for place, middle in enumerate(middles):
        apart = (sizes[place] + sizes[place - 1]) / 2 if place else 0.0
        out.append(max(middle, out[-1] + apart) if out else middle)
    limit = top
    for place in reversed(range(len(out))):
        out[place] = min(out[place], limit)
        limit = out[place] - (sizes[place] + sizes[place - 1]) / 2
    return out


def _lines(end: End) -> int:
    return 1 + end.words.count("<br>")


def _cut(end: End) -> End:
    first, more, _ = end.words.partition("<br>")
    return replace(end, words=f"{first.split(',')[0]} …") if more else end


def _note(room: Room, row: int, end: End, up: float, whole: str) -> dict[str, Any]:
    number = "" if row == 1 else str(row)
    return {
        "text": end.words, "xref": f"x{number}", "yref": f"y{number}", "x": end.x, "y": end.y,
        "xshift": 4, "yshift": up, "xanchor": "left", "yanchor": "middle", "align": "left",
        "showarrow": False, "font": {"size": room.type(11), "color": INK}, "hovertext": whole,
    }  # fmt: skip
