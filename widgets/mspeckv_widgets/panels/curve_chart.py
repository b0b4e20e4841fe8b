"""A preset's whole axis: as published above, on this machine below, with what has run here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mspeckv_study.experiments import experiment
from mspeckv_study.experiments.ablations import axis_words
from mspeckv_widgets.charts.figure import Figure
from mspeckv_widgets.charts.theme import CLEAR, FAINT, GRID, INK
from mspeckv_widgets.compared import Spread
from mspeckv_widgets.panels.live_labels import HEIGHT
from mspeckv_widgets.panels.prediction import Curve

PUBLISHED, HERE = 1, 2
_WORDS = {
    "static": "mspeckv, residents fixed",
    "lru": "mspeckv, residents by LRU",
    "plain": "plain decoding, same KV",
    "reference": "",
}
_LOOKS = {
    "static": ("#0072B2", "solid", "circle"),
    "lru": ("#D55E00", "dash", "square"),
    "plain": ("#808080", "dashdot", "diamond"),
    "reference": ("#CC79A7", "longdash", "triangle-up"),
}
_ROWS = {PUBLISHED: ("static", "lru", "reference"), HERE: ("static", "lru", "plain")}
_RUN_HERE = "#009E73"
_NOTHING = Curve(np.array([]), {name: np.array([]) for name in _ROWS[HERE]}, {}, ())
"""A setting that is not modelled."""


class CurveChart:
    """The figure of a preset.

    Args:
        on_place: told of a value of the axis, at classroom size, that was clicked.
    """

    def __init__(self, on_place: Callable[[int], None]) -> None:
        self._on_place = on_place
        self._runs: tuple[int, ...] = ()
        self.figure: Any = Figure(make_subplots(rows=2, cols=1, vertical_spacing=0.2))
        self._lines: dict[tuple[int, str], Any] = {}
        for row, names in _ROWS.items():
            for name in names:
                colour, dash, _ = _LOOKS[name]
                look = {"color": colour, "dash": dash, "width": 2}
                # a line must not stand between the pointer and a place to click
                line = go.Scatter(x=[], y=[], mode="lines", line=look, hoverinfo="skip")
                self._add(row, name, line)
        for name in ("lru", "reference"):
            colour, _, marker = _LOOKS[name]
            sign = {"symbol": f"{marker}-open", "size": 11, "color": colour}
            points = go.Scatter(
                x=[], y=[], mode="markers", marker=sign,
                error_y={"type": "data", "array": [], "thickness": 1},
                hovertemplate="published: %{y:.3g} ms at %{x}; click to run it here<extra></extra>",
            )  # fmt: skip
            self._add(PUBLISHED, f"{name} points", points)
        places = go.Scatter(
            x=[], y=[], mode="markers", marker={"symbol": "circle-open", "size": 12, "color": INK},
            hovertemplate="click to run %{x} here<extra></extra>",
        )  # fmt: skip
        self._add(HERE, "places", places)
        runs = go.Scatter(
            x=[], y=[], mode="markers", marker={"symbol": "star", "size": 12, "color": _RUN_HERE},
            error_y={"type": "data", "symmetric": False, "array": [], "arrayminus": []},
            hovertemplate="measured here: %{y:.0f} ms at %{x}<extra></extra>",
        )  # fmt: skip
        self._add(HERE, "runs", runs)
        clickable = (PUBLISHED, "lru points"), (PUBLISHED, "reference points"), (HERE, "places")
        for key in clickable:
            self._lines[key].on_click(self._clicked)
        self._lay_out()

    def draw(
        self,
        name: str,
        published: Curve,
        here: Curve | None,
        runs: Mapping[int, Spread],
        method: str = "mspeckv",
    ) -> None:
        """Show a preset.

        Args:
            name: ``A1``, ``A2``, ``B1`` or ``B2``.
            published: see `mspeckv_widgets.panels.prediction.as_published`.
            here: the same axis on this machine; None where the setting is not modelled.
            runs: what has been measured here, by place.
            method: whose curves are here.
        """
        known = experiment(name)
        self._runs = known.values
        with self.figure.batch_update():
            self._draw_curve(PUBLISHED, published)
            self._lines[PUBLISHED, "reference"].name = f"{published.reference} as published, floats"
            for line, points in published.points.items():
                trace = self._lines[PUBLISHED, f"{line} points"]
                trace.x, trace.y = [p[0] for p in points], [p[1] for p in points]
                trace.error_y.array = [p[2] for p in points]
            here = here or _NOTHING
            self._draw_curve(HERE, here)
            places = self._lines[HERE, "places"]
            places.x = list(here.places)
            places.y = [_at(here, one) for one in here.places]
            for line in ("static", "lru"):
                self._lines[HERE, line].name = _WORDS[line].replace("mspeckv", method, 1)
            self._draw_runs(runs)
            self._name(name, known.axis)

    def _draw_curve(self, row: int, curve: Curve) -> None:
        for line, ms in curve.lines.items():
            trace = self._lines[row, line]
            trace.x, trace.y = curve.x.tolist(), ms.tolist()

    def _draw_runs(self, runs: Mapping[int, Spread]) -> None:
        trace, places = self._lines[HERE, "runs"], sorted(runs)
        trace.x, trace.y = places, [runs[one].middle for one in places]
        trace.error_y.array = [runs[one].high - runs[one].middle for one in places]
        trace.error_y.arrayminus = [runs[one].middle - runs[one].low for one in places]

    def _name(self, name: str, axis: str) -> None:
        layout = self.figure.layout
        layout.xaxis2.title.text = f"{axis_words(axis)} (above: published; below: here)"
        titles = (
            f"<b>{name} as published: 7B, ms per token</b> (points published, lines modelled)",
            "<b>Here, ms per token</b> (lines modelled, stars measured; click a circle to run)",
        )
        for note, words in zip(layout.annotations[:2], titles, strict=True):
            note.text = words

    def _clicked(self, trace: Any, points: Any, _: Any) -> None:
        if not points.point_inds:
            return
        place = points.point_inds[0]
        here = self._lines[HERE, "places"]
        self._on_place(int(here.x[place]) if trace is here else self._runs[place])

    def _add(self, row: int, name: str, trace: Any) -> None:
        trace.showlegend = name == "reference" or (row == HERE and name in _WORDS)
        trace.name = _WORDS.get(name, name)
        self.figure.add_trace(trace, row=row, col=1)
        self._lines[row, name] = self.figure.data[-1]

    def _lay_out(self) -> None:
        figure = self.figure
        for y in (1.0, 0.42):
            figure.add_annotation(
                text="", xref="paper", yref="paper", x=0, y=y, xanchor="left", yanchor="bottom",
                showarrow=False, font={"size": 12, "color": INK},
            )  # fmt: skip
        figure.update_layout(
            height=HEIGHT, autosize=True, margin={"l": 44, "r": 8, "t": 20, "b": 64},
            paper_bgcolor=CLEAR, plot_bgcolor=CLEAR, font={"color": INK, "size": 11},
            legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom",
                    "bgcolor": CLEAR},
        )  # fmt: skip
        figure.update_xaxes(gridcolor=GRID, linecolor=FAINT, zeroline=False, title_standoff=2)
        figure.update_yaxes(gridcolor=GRID, linecolor=FAINT, rangemode="tozero", nticks=5)


def _at(curve: Curve, place: int) -> float:
    """The fixed residents' line at a place."""
    nearest = int(abs(curve.x - place).argmin())
    return float(curve.lines["static"][nearest])
