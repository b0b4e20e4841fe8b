"""Names at the ends of the live charts' lines: in their chart, apart, near their line."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mspeckv_widgets.panels.live_charts import _STEP, _stepped
from mspeckv_widgets.panels.live_labels import BELOW, TIME, End, Room, in_lines, labels

LONG = "mspeckv, int8, on-chip 15, resident 0"
LINE = 13
"""Pixels."""


def test_a_long_name_at_the_floor_stands_above_the_axis() -> None:
    [note] = labels(Room(), TIME, [End(0, 0, in_lines(LONG))], 1000.0)
    assert "<br>" in note["text"]
    # two lines around its middle: the lower one is half under the axis, as a short name is
    assert note["yshift"] - LINE == -LINE / 2


def test_no_line_of_a_name_is_cut_by_the_charts_edge() -> None:
    names = ("autoregressive, int8, on-chip 15, resident 0", LONG, "gamma 16", "mspeckv")
    for name in names:
        lines = in_lines(name).split("<br>")
        assert max(map(len, lines)) <= 22
        assert " ".join(lines) == name


def test_a_short_name_stands_at_its_line() -> None:
    [note] = labels(Room(), TIME, [End(0, 0, "modelled")], 1000.0)
    assert note["yshift"] == 0


def test_names_at_one_place_are_apart() -> None:
    notes = labels(Room(), TIME, [End(0, 0, in_lines(LONG)), End(0, 0, "modelled")], 1000.0)
    low, high = sorted(note["yshift"] for note in notes)
    assert high - low >= 1.5 * LINE


@pytest.mark.parametrize("value", [0.0, 123.0, 499.0, 1000.0])
def test_a_label_at_work_is_never_far_from_its_lines_end(value: float) -> None:
    assert abs(_stepped(value, _STEP * 1000) - value) <= _STEP * 1000 / 2
    assert _stepped(value, 0) == value


def test_names_that_need_more_height_than_their_chart_are_cut_to_a_line() -> None:
    """Four settings that differ by three things each, at the ends of lines that lie together."""
    settings = [f"resident {at}, gamma {2 * at}, 64 new" for at in range(4)]
    ends = [End(64, at, in_lines(name)) for at, name in enumerate(settings)]
    room = Room()
    notes = labels(room, TIME, [*ends, End(64, 2, "modelled")], 1000.0)
    assert [note["text"] for note in notes].count("modelled") == 1
    cut = [note for note in notes if note["text"] != "modelled"]
    assert [note["text"] for note in cut] == [f"resident {at} …" for at in range(4)]
    assert [note["hovertext"].replace("<br>", " ") for note in cut] == settings
    pixels = room.high(TIME) / (1 + BELOW) / 1000.0
    middles = [note["yshift"] + note["y"] * pixels for note in notes]
    assert min(middles) >= 0, "the lowest does not slide into the chart below"
    assert max(middles) <= 1000.0 * pixels
    apart = [upper - lower for lower, upper in pairwise(middles)]
    assert min(apart) == pytest.approx(LINE)


def test_names_that_have_room_are_whole() -> None:
    ends = [End(64, value, in_lines(LONG)) for value in (0, 900)]
    notes = labels(Room(), TIME, ends, 1000.0)
    assert all(note["text"] == note["hovertext"] for note in notes)
