"""A plotly figure whose views are all up to date, also those opened later, and its look."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import plotly.graph_objects as go
import traitlets
from traitlets.utils.bunch import Bunch

from mspeckv_widgets.charts.theme import CLEAR, FAINT, GRID, INK
from mspeckv_widgets.page_widget import PageWidget, hearing_late

_STEPS = [step * 10.0**power for power in range(-4, 10) for step in (1, 2, 5)]
LOG_AXIS: dict[str, Any] = {
    "type": "log", "tickmode": "array", "tickvals": _STEPS,
    "ticktext": [f"{step:,.0f}" if step >= 1 else f"{step:.4f}".rstrip("0") for step in _STEPS],
}  # fmt: skip
"""A logarithmic axis whose ticks are whole numbers, such as 2, 5, 10, 20, and not bare digits."""

_BUTTONS = [["toImage", "resetScale2d"]]
"""What stands over a figure under the mouse: few, so that they leave its title free."""
_TYPE = 12
"""Plotly's own size of type, in pixels."""
LARGE = 20
"""Pixels of the least type of a figure that is shown to a room."""
BIG = LARGE / _TYPE
"""By how much such a figure is larger."""


class Figure(PageWidget, go.FigureWidget):
    """A `plotly.graph_objects.FigureWidget` for use inside panels.

    plotly tells the views that there are of each change, but renews what a further view begins with
    only where the figure is a cell's own result. Within a panel, a page loaded anew would show the
    figure as it was made. Here that is renewed whenever the page asks for it.

    A panel's thread draws while the page's answers come on another: they take turns here.

    A page that was too busy to load plotly in time begins with what has been drawn meanwhile.
    """

    _esm = hearing_late(str(go.FigureWidget._esm))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._alone = threading.RLock()
        super().__init__(*args, **kwargs)
        # else it does not hear of a window's new size, nor, from a panel, of its tab being shown
        self._config = {"responsive": True, "modeBarButtons": _BUTTONS, "displaylogo": False}
        self._enlarged: dict[str, tuple[Any, float]] = {}

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        """What a page is told of this figure; ``key`` as in ipywidgets."""
        asked = {key} if isinstance(key, str) else None if key is None else {*key}
        held = vars(self)
        with self._alone:
            # as values, not as changes: nothing is to be sent from here
            if held.get("_layout") is not None and (asked is None or "_widget_layout" in asked):
                self._trait_values["_widget_layout"] = deepcopy(held["_layout"])
            if held.get("_data") is not None and (asked is None or "_widget_data" in asked):
                self._trait_values["_widget_data"] = deepcopy(held["_data"])
            return super().get_state(key, drop_defaults)

    @contextmanager
    def batch_update(self) -> Iterator[None]:
        """Changes that are sent together, by one thread alone."""
        with self._alone, super().batch_update():
            yield

    def update_layout(self, *args: Any, **kwargs: Any) -> Any:
        """As in plotly, while no other thread draws."""
        with self._alone:
            return super().update_layout(*args, **kwargs)

    def plotly_relayout(self, *args: Any, **kwargs: Any) -> None:
        """As in plotly, while no other thread draws: the user's hand."""
        with self._alone:
            super().plotly_relayout(*args, **kwargs)

    def plotly_restyle(self, *args: Any, **kwargs: Any) -> None:
        """As in plotly, while no other thread draws: the user's hand."""
        with self._alone:
            super().plotly_restyle(*args, **kwargs)

    def renew(self) -> None:
        """Tell the page what a further view of this figure begins with."""
        self.send_state(["_widget_layout", "_widget_data"])

    def enlarge(self, big: bool) -> None:
        """Scale all type, the margins and the height for a projector, or put them back.

        What its panel sets meanwhile stays as the panel set it. Further calls do this for what has
        come since.
        """
        with self._alone:
            changes = dict(self._larger() if big else self._usual())
            if not changes:
                return
            with self.batch_update():
                for path, value in changes.items():
                    where, name = _place(self, path)
                    where[name] = value

    def _larger(self) -> Iterator[tuple[str, float]]:
        layout = self.layout.to_plotly_json()
        layout.setdefault("font", {}).setdefault("size", _TYPE)
        found = {f"layout.{path}": size for path, size in _sizes(layout)}
        for index, trace in enumerate(self.data):
            known = {name: part for name, part in trace.to_plotly_json().items() if name != "uid"}
            found |= {f"{index}.{path}": size for path, size in _sizes(known)}
        for path, size in found.items():
            usual, _ = self._enlarged.get(path, (size, 0))
            is_type = path.endswith("font.size")
            # type that is large already was made so by its panel
            if size == usual and not (is_type and size >= LARGE):
                large = round(size * BIG, 1)
                self._enlarged[path] = (size, max(LARGE, large) if is_type else large)
                yield path, self._enlarged[path][1]

    def _usual(self) -> Iterator[tuple[str, Any]]:
        for path, (usual, large) in self._enlarged.items():
            where, name = _place(self, path)
            if where is not None and name in where and where[name] == large:
                yield path, usual
        self._enlarged.clear()

    def _send_relayout_msg(self, layout_data: Any, source_view_id: Any = None) -> None:
        super()._send_relayout_msg(self._filling(layout_data), source_view_id)

    def _send_update_msg(
        self, restyle_data: Any, relayout_data: Any, trace_indexes: Any = None,
        source_view_id: Any = None,
    ) -> None:  # fmt: skip
        super()._send_update_msg(
            restyle_data, self._filling(relayout_data), trace_indexes, source_view_id
        )

    def _filling(self, changes: Any) -> Any:
        """A figure that fills its panel's width goes on doing so; plotly fixes it with a height."""
        if not changes or not changes.get("height") or self.layout.width is not None:
            return changes
        return {"autosize": True, "width": None, **changes}

    @traitlets.observe("_js2py_traceDeltas")
    def _handler_js2py_traceDeltas(self, change: Any) -> None:  # noqa: N802
        super()._handler_js2py_traceDeltas(_without(change, "trace_deltas", []))

    @traitlets.observe("_js2py_layoutDelta")
    def _handler_js2py_layoutDelta(self, change: Any) -> None:  # noqa: N802
        super()._handler_js2py_layoutDelta(_without(change, "layout_delta", {}))


def _without(change: Any, name: str, nothing: Any) -> Any:
    """A page's answer without what it worked out."""
    told = change["new"]
    return Bunch(new={**told, name: nothing} if told else told)


def _place(figure: Any, path: str) -> tuple[Any, str]:
    """Where a size is set: the layout, or a trace if it is still there, and the path in it."""
    owner, rest = path.split(".", 1)
    if owner == "layout":
        return figure.layout, rest
    return (figure.data[int(owner)] if int(owner) < len(figure.data) else None), rest


def _sizes(part: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Sizes of type in a part of a figure, its height and margins, by plotly's paths."""
    for name, value in part.items() if isinstance(part, Mapping) else ():
        here = f"{path}.{name}" if path else name
        if isinstance(value, Mapping):
            yield from _sizes(value, here)
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            for index, one in enumerate(value):
                yield from _sizes(one, f"{here}[{index}]")
        elif isinstance(value, (int, float)) and (
            here in {"height", "margin.l", "margin.r", "margin.t", "margin.b"}
            or here.endswith("font.size")
        ):
            yield here, value


def lay_out(figure: Any, title: str, height: int) -> Any:
    """Give a plotly figure the project's look: clear background, legend below, quiet grid.

    Returns the figure. A legend below leaves the plot its width on any screen.
    """
    figure.update_layout(
        title={"text": title, "font": {"size": 13}, "x": 0, "xref": "paper"},
        height=height,
        autosize=True,
        margin={"l": 70, "r": 12, "t": 36, "b": 45},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"color": INK, "size": 12},
        legend={
            "orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom",
            "font": {"size": 11}, "bgcolor": CLEAR,
        },
    )  # fmt: skip
    lines = {"gridcolor": GRID, "linecolor": FAINT, "zerolinecolor": FAINT, "automargin": True}
    # a line at 0 says something of heights, and nothing of places
    figure.update_xaxes(**lines, zeroline=False)
    figure.update_yaxes(**lines)
    return figure
