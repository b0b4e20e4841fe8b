"""The figure of all panels: what a page answers changes nothing, large type comes and goes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mspeckv_widgets.charts.figure import BIG, LOG_AXIS, Figure, lay_out
from mspeckv_widgets.panel import panel


@pytest.fixture
def figure() -> Figure:
    """Two traces, one of an array, and an annotation with type of its own."""
    made = Figure()
    made.add_scatter(x=[1, 2], y=np.array([0.5, 1.5]), name="measured", showlegend=False)
    made.add_bar(x=[1, 2], y=[1.0, 2.0], text=["a", "b"], textfont={"size": 9})
    lay_out(made, "KV over the link", 260)
    made.add_annotation(text="own", x=1, y=1, font={"size": 10})
    made.add_annotation(text="plain", x=2, y=1)
    return made


def begins_with(figure: Figure) -> str:
    """What a further view is told."""
    figure.get_state()
    return str([figure._trait_values[name] for name in ("_widget_data", "_widget_layout")])


def answer(figure: Figure, **worked_out: Any) -> None:
    """What a page sends after it has drawn a change."""
    deltas = [{"uid": trace.uid, **worked_out} for trace in figure.data]
    edit = figure._last_trace_edit_id
    figure._js2py_traceDeltas = {"trace_deltas": deltas, "trace_edit_id": edit}
    layout = {"xaxis": {"range": [0, 3]}, "title": {"text": "Click to enter"}}
    edit = figure._last_layout_edit_id
    figure._js2py_layoutDelta = {"layout_delta": layout, "layout_edit_id": edit}


@pytest.mark.parametrize("array", [{"dtype": "float64", "value": {}, "shape": [2]}, [0.5, 1.5], {}])
def test_an_answer_takes_nothing_away_and_never_raises(figure: Figure, array: Any) -> None:
    before, told = figure.to_plotly_json(), begins_with(figure)
    for _ in range(2):
        figure.data[0].y = np.array([0.5, 1.5])
        answer(figure, y=array, x=array, name="trace 0", showlegend=True, visible=True)
    assert str(figure.to_plotly_json()) == str(before)
    assert figure._js2py_traceDeltas is None
    assert not figure._trace_edit_in_process
    assert not figure._layout_edit_in_process
    assert begins_with(figure) == told


def test_the_users_hand_is_kept(figure: Figure) -> None:
    figure._js2py_relayout = {
        "relayout_data": {"xaxis.range[0]": 1.0, "xaxis.range[1]": 1.5}, "source_view_id": "a",
    }  # fmt: skip
    figure._js2py_restyle = {
        "style_data": {"visible": "legendonly"}, "style_traces": [1], "source_view_id": "a",
    }  # fmt: skip
    answer(figure, visible=True)
    told = figure.get_state()
    assert told["_widget_layout"]["xaxis"]["range"] == [1.0, 1.5]
    assert told["_widget_data"][1]["visible"] == "legendonly"
    figure._js2py_relayout = {
        "relayout_data": {"xaxis.autorange": True}, "source_view_id": "a",
    }  # fmt: skip
    assert figure.get_state()["_widget_layout"]["xaxis"]["autorange"] is True


def test_large_type_and_back(figure: Figure) -> None:
    before = figure.to_plotly_json()
    figure.enlarge(True)
    layout = figure.layout
    assert layout.font.size == 20
    assert layout.title.font.size == pytest.approx(13 * BIG, abs=0.1)
    assert layout.height == pytest.approx(260 * BIG, abs=0.1)
    assert layout.annotations[0].font.size == 20, "small type, too"
    assert figure.data[1].textfont.size == 20
    once = figure.to_plotly_json()
    figure.enlarge(True)
    assert str(figure.to_plotly_json()) == str(once), "large is large"
    figure.enlarge(False)
    assert str(figure.to_plotly_json()) == str(before)


def test_what_a_panel_sets_meanwhile_stays(figure: Figure) -> None:
    figure.enlarge(True)
    figure.layout.height = 700
    figure.layout.annotations = [figure.layout.annotations[0]]
    figure.data = figure.data[:1]
    figure.add_annotation(text="late", x=1, y=1, font={"size": 6})
    figure.enlarge(True)
    assert figure.layout.height == 700
    assert figure.layout.annotations[1].font.size == 20
    figure.enlarge(False)
    assert figure.layout.height == 700
    assert figure.layout.annotations[1].font.size == 6
    assert figure.layout.title.font.size == 13


def test_a_new_height_leaves_a_figure_filling_its_room(
    figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    figure.observe(
        lambda change: sent.append(change["new"]), names=["_py2js_relayout", "_py2js_update"]
    )
    figure.layout.height = 300
    figure.update_layout(height=310, title_text="new")
    given = [one.get("relayout_data") or one.get("layout_data") for one in sent if one]
    assert [one["height"] for one in given] == [300, 310]
    assert all(one["autosize"] is True and one["width"] is None for one in given)
    figure.layout.width = 480
    sent.clear()
    figure.layout.height = 320
    assert [one["relayout_data"] for one in sent if one] == [{"height": 320}]


def test_a_panel_enlarges_its_figures_before_it_tells_its_room(figure: Figure) -> None:
    heard: list[tuple[Any, ...]] = []
    rooms: list[int] = []
    box = panel(
        "Example", [figure], rooms.append,
        lambda *size: heard.append((*size, figure.layout.font.size)),
    )  # fmt: skip
    assert box._frame.measured
    box._frame.set_state({"size": [1920, 1080, True], "room": 0})
    box._frame.set_state({"size": [470, 900, False], "room": 470})
    assert heard == [(1920, 1080, True, 20), (470, 900, False, 12)]
    assert rooms == [470]
    assert not panel("Example", [figure])._frame.measured


def test_logarithmic_ticks_are_whole_numbers() -> None:
    named = dict(zip(LOG_AXIS["tickvals"], LOG_AXIS["ticktext"], strict=True))
    assert [named[step] for step in (2.0, 5.0, 10.0, 2000.0)] == ["2", "5", "10", "2,000"]
    assert named[1 * 10.0**-2] == "0.01"


@pytest.mark.parametrize(
    "act",
    [
        lambda figure: figure.enlarge(True),
        lambda figure: figure.update_layout(height=300),
        lambda figure: figure.get_state(),
        lambda figure: figure.plotly_relayout({"height": 300}),
        lambda figure: figure.plotly_restyle({"visible": True}, [0]),
    ],
)
def test_two_threads_take_turns(figure: Figure, act: Callable[[Figure], Any]) -> None:
    """A panel draws on a thread of its own while the page's answers come on another."""
    other = threading.Thread(target=act, args=(figure,))
    with figure.batch_update():
        other.start()
        other.join(0.3)
        assert other.is_alive(), "it waits"
        figure.layout.title.text = "drawn"
    other.join(10)
    assert not other.is_alive()
    assert figure.layout.title.text == "drawn"
