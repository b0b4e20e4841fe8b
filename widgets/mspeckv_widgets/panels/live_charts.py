"""The three charts, as subplots of one figure: a FigureWidget of its own for each would be heavy.

Traces are made once, empty; drawing replaces their arrays inside one batch, so that a refresh is
one message to the browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mspeckv_widgets import record as series
from mspeckv_widgets.charts.figure import Figure
from mspeckv_widgets.charts.theme import CLEAR, FAINT, GRID, INK, PAST, PURPOSES, TIERS
from mspeckv_widgets.record import RunRecord, Series

LINK, ACCEPTANCE, LATENCY = 1, 2, 3
_EMPTY: Series = np.empty(0)
_LEGENDS = {LINK: "legend", ACCEPTANCE: "legend2", LATENCY: "legend3"}
_TITLES = {
    LINK: "KV over the link, by purpose (round 0 is the prefill)",
    ACCEPTANCE: "Acceptance per tier, over the run so far",
    LATENCY: "Latency per tier",
}
_UNITS = {
    LINK: "MB per round",
    ACCEPTANCE: "% of proposed<br>tokens kept",
    LATENCY: "ms per round",
}
_PAST_WORDS = {LINK: "all", ACCEPTANCE: "kept by tier 2", LATENCY: "all tiers"}
_ROWS = (LINK, ACCEPTANCE, LATENCY)


@dataclass(frozen=True)
class Spread:
    """Where the charts and their legends lie: legends beside them, or below where width lacks.

    Attributes:
        height: of the figure, in pixels.
        domains: bottom and top of each chart, in shares of the figure.
        legends: top of each legend, likewise.
        legend_x: left edge of the legends, in widths of a chart.
        orientation: of a legend's entries, as plotly says it.
    """

    height: int
    domains: tuple[tuple[float, float], ...]
    legends: tuple[float, ...]
    legend_x: float
    orientation: str


WIDE = Spread(640, ((0.75, 1.0), (0.375, 0.625), (0.0, 0.25)), (1.0, 0.625, 0.26), 1.01, "v")
NARROW = Spread(
    1020, ((0.83, 1.0), (0.475, 0.645), (0.13, 0.29)), (0.785, 0.43, 0.085), 0.0, "h"
)  # fmt: skip


class Charts:
    """The figure and what draws into it.

    Attributes:
        figure: the widget to display.
    """

    def __init__(self) -> None:
        self.figure: Any = Figure(
            make_subplots(
                rows=3,
                cols=1,
                subplot_titles=[_TITLES[row] for row in _ROWS],
            )
        )
        self._traces: dict[str, Any] = {}
        for age in range(len(PAST)):
            for row in _ROWS:
                self._add_past(row, age)
        for purpose in PURPOSES:
            self._add_bar(purpose)
        for tier in TIERS:
            if tier != max(TIERS):
                self._add_line(ACCEPTANCE, tier)
            self._add_line(LATENCY, tier)
        self._lay_out()
        self.fit(room=0)

    def draw(self, current: RunRecord | None, past: Sequence[RunRecord]) -> None:
        """Show ``current`` in full and ``past`` (newest first) faded behind it."""
        lines: dict[str, tuple[Series, Series]] = {}
        if current is not None:
            rounds, moves = series.round_axis(current), series.link_axis(current)
            for purpose, values in series.link_series(current).items():
                lines[f"{LINK} {purpose}"] = (moves, values)
            for tier, values in series.acceptance_series(current).items():
                lines[f"{ACCEPTANCE} tier {tier}"] = (rounds, values)
            for tier, values in series.latency_series(current).items():
                lines[f"{LATENCY} tier {tier}"] = (rounds, values)
        labels: dict[str, str] = {}
        for age, old in enumerate(past[: len(PAST)]):
            rounds, moves = series.round_axis(old), series.link_axis(old)
            top = series.top_acceptance_series(old)
            lines[f"{LINK} past {age}"] = (moves, series.total_link_series(old))
            lines[f"{ACCEPTANCE} past {age}"] = (rounds if len(top) else _EMPTY, top)
            lines[f"{LATENCY} past {age}"] = (rounds, series.total_latency_series(old))
            for row, what in _PAST_WORDS.items():
                labels[f"{row} past {age}"] = f"{old.label}: {what}"
        title = _TITLES[LATENCY]
        if current is not None and current.waits_are_emulated:
            title += " (waits for the emulated link included)"
        with self.figure.batch_update():
            self.figure.layout.annotations[LATENCY - 1].text = title
            for name, trace in self._traces.items():
                x, y = lines.get(name, (_EMPTY, _EMPTY))
                trace.x, trace.y = x, y
                if " past " in name:
                    trace.name = labels.get(name, "")
                    trace.showlegend = bool(len(x))
                elif name == f"{LINK} other":
                    trace.showlegend = any(y)

    def clear(self) -> None:
        """Empty every chart."""
        self.draw(None, ())

    def fit(self, room: int) -> None:
        """Put the legends below the charts where there is no room beside them.

        Args:
            room: width of a narrow panel in CSS pixels; 0 for a wide one.
        """
        spread = NARROW if room else WIDE
        with self.figure.batch_update():
            layout = self.figure.layout
            layout.height = spread.height
            layout.autosize, layout.width = not room, room or None
            for place, row in enumerate(_ROWS):
                layout[f"yaxis{row if row > 1 else ''}"].domain = spread.domains[place]
                layout.annotations[place].y = spread.domains[place][1]
                layout[_LEGENDS[row]].update(
                    x=spread.legend_x, y=spread.legends[place], orientation=spread.orientation
                )

    def _add_past(self, row: int, age: int) -> None:
        style = PAST[age]
        trace = go.Scatter(
            x=_EMPTY,
            y=_EMPTY,
            mode="lines",
            line={"color": style.colour, "dash": style.dash, "width": 2, "shape": "hvh"},
            opacity=style.opacity,
            name="",
            showlegend=False,
            legend=_LEGENDS[row],
            hovertemplate="%{fullData.name}<br>round %{x}: %{y:.3g}<extra></extra>",
        )
        self._add(row, f"past {age}", trace)

    def _add_bar(self, purpose: str) -> None:
        style = PURPOSES[purpose]
        trace = go.Bar(
            x=_EMPTY,
            y=_EMPTY,
            name=style.words,
            marker={"color": style.colour, "pattern": {"shape": style.pattern, "size": 5}},
            showlegend=purpose != "other",
            legend=_LEGENDS[LINK],
            hovertemplate=f"{purpose}<br>round %{{x}}: %{{y:.3f}} MB<extra></extra>",
        )
        self._add(LINK, purpose, trace)

    def _add_line(self, row: int, tier: int) -> None:
        style = TIERS[tier]
        trace = go.Scatter(
            x=_EMPTY,
            y=_EMPTY,
            mode="lines+markers",
            name=f"{style.name}: {style.role}",
            line={"color": style.colour, "dash": style.dash, "width": 2},
            marker={"symbol": style.marker, "size": 7},
            showlegend=True,
            legend=_LEGENDS[row],
            hovertemplate=f"{style.name}<br>round %{{x}}: %{{y:.1f}}<extra></extra>",
        )
        self._add(row, f"tier {tier}", trace)

    def _add(self, row: int, name: str, trace: Any) -> None:
        self.figure.add_trace(trace, row=row, col=1)
        self._traces[f"{row} {name}"] = self.figure.data[-1]

    def _lay_out(self) -> None:
        figure = self.figure
        legend = {
            "xanchor": "left",
            "yanchor": "top",
            "font": {"size": 11},
            "bgcolor": CLEAR,
            "tracegroupgap": 0,
        }
        figure.update_layout(
            barmode="stack",
            bargap=0.25,
            autosize=True,
            margin={"l": 70, "r": 10, "t": 30, "b": 45},
            paper_bgcolor=CLEAR,
            plot_bgcolor=CLEAR,
            font={"color": INK, "size": 12},
            uirevision="keep",
            **dict.fromkeys(_LEGENDS.values(), legend),
        )
        figure.update_annotations(font={"size": 13, "color": INK}, x=0, xanchor="left")
        figure.update_xaxes(gridcolor=GRID, linecolor=FAINT, title_standoff=4, rangemode="tozero")
        figure.update_yaxes(gridcolor=GRID, linecolor=FAINT, rangemode="tozero")
        for row, unit in _UNITS.items():
            figure.update_yaxes(title_text=unit, row=row, col=1)
        figure.update_yaxes(range=[0, 105], row=ACCEPTANCE, col=1)
        figure.update_xaxes(title_text="round (one tier-2 pass each)", row=LATENCY, col=1)
        for row in (LINK, ACCEPTANCE):
            figure.update_xaxes(title_text="round", row=row, col=1)
