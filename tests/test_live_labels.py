"""Names at the ends of the live charts' lines: in their chart, apart, near their line."""

from __future__ import annotations

import pytest

from mspeckv_widgets.panels.live_charts import _STEP, _stepped
from mspeckv_widgets.panels.live_labels import TIME, End, Room, in_lines, labels

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
        assert max(map(len, lines)) <= 23
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
