"""The live charts: traffic, time and acceptance over what has been settled, one colour a setting.

Three subplots of one figure, since a FigureWidget of its own for each would be heavy. Traces are
made once, empty; drawing replaces the points of those that changed, inside one batch. Points go as
lists: plotly compares what comes back from the browser, which arrays do not allow.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mspeckv_widgets import record as lines
from mspeckv_widgets.charts.figure import Figure
from mspeckv_widgets.charts.run_styles import RUNS, signed
from mspeckv_widgets.charts.theme import CLEAR, FAINT, GRID, INK, TIERS
from mspeckv_widgets.panels.live_labels import (
    BELOW,
    DOMAINS,
    HEIGHT,
    KEPT,
    MARGIN,
    ROWS,
    TIME,
    TRAFFIC,
    End,
    Room,
    in_lines,
    labels,
    title,
)
from mspeckv_widgets.panels.prediction import Predicted
from mspeckv_widgets.panels.runner import View
from mspeckv_widgets.record import PREFILL_ROOM, Axis, Line, RunRecord

_TITLES: dict[Axis, dict[int, str]] = {
    "tokens": {
        TRAFFIC: "KV over the link while decoding, MB (counted)",
        TIME: "Time of decoding, ms (measured)",
        KEPT: "Kept of a tier's guesses so far, % (grey: modelled)",
    },
    "seconds": {
        TRAFFIC: "KV over the link, prefill included, MB (counted)",
        TIME: "Tokens settled",
        KEPT: "Kept of a tier's guesses so far, % (grey: modelled)",
    },
}
_X_TITLES: dict[Axis, str] = {
    "tokens": "tokens settled (left of 0: reading the prompt)",
    "seconds": "seconds since the prompt was begun",
}
_LABEL_ROOM = 1.45
"""The x axis ends so many times as far as the lines, for the labels at their ends."""
_STEP = 1 / 8
"""Labels of a run at work move by so much of their chart's height."""
_DASHES = {0: "dot", 1: "dash"}
MODELLED = "modelled"


@dataclass(frozen=True)
class Drawn:
    """One setting in the charts.

    Attributes:
        slot: its colour.
        name: what it differs by.
        record: the run that stands for it.
    """

    slot: int
    name: str
    record: RunRecord


def lines_of(view: View) -> list[Drawn]:
    """The charts' lines: a typical run of each setting, and the newest where it adds to these."""
    called, newest = view.names, view.current
    drawn = {one.slot: Drawn(one.slot, called[one.setting], one.typical) for one in view.compared}
    if newest is not None and newest.pieces is not None:
        free = next((slot for slot in range(len(RUNS)) if slot not in drawn), 0)
        drawn[free] = Drawn(free, "recorded run", newest)
    elif newest is not None and newest.setting in called:
        slot = dict(view.slots)[newest.setting]
        if view.busy or slot not in drawn:
            drawn[slot] = Drawn(slot, called[newest.setting], newest)
    return list(drawn.values())


class Charts:
    """The figure and what draws into it.

    Attributes:
        figure: the widget to display.
    """

    def __init__(self) -> None:
        self.figure: Any = Figure(make_subplots(rows=3, cols=1))
        self._traces: dict[tuple[Any, ...], Any] = {}
        self._sent: dict[Any, Any] = {}
        self._room = Room()
        for slot in range(len(RUNS)):
            for row in (TRAFFIC, TIME):
                self._add((row, slot), _solid(slot))
            for tier in _DASHES:
                self._add((KEPT, slot, tier), _dashed(slot, tier))
        for row in (TRAFFIC, TIME):
            self._add((row, MODELLED), _dotted())
        for tier in _DASHES:
            self._add((KEPT, MODELLED, tier), _dotted())
        self._lay_out()

    def draw(
        self,
        shown: Sequence[Drawn],
        predicted: Predicted | None,
        new_tokens: int,
        axis: Axis = "tokens",
        stale: bool = False,
    ) -> None:
        """Show settings and, dotted, what the model says of the one in the controls.

        Args:
            shown: at most one of each slot.
            predicted: None where there is no prediction.
            new_tokens: what the controls ask for.
            axis: what runs along x.
            stale: the controls' setting has not run; measured lines are greyed.
        """
        points = self._measured(shown, axis)
        points |= _modelled(predicted, new_tokens, axis, _prefill_of(shown))
        end = max((max(line.x) for line in points.values() if line.x), default=float(new_tokens))
        if axis == "tokens":
            end = max(end, new_tokens, *(d.record.setting.config.new_tokens for d in shown), 1)
        with self.figure.batch_update():
            for key, trace in self._traces.items():
                self._send(key, trace, points.get(key, Line()), stale and key[1] != MODELLED)
            self._scale(points, end, axis)
            names = {one.slot: one.name for one in shown}
            running = any(one.record.summary is None for one in shown)
            self._annotate(points, names, axis, _STEP if running else 0)

    def resize(self, height: int, big: bool) -> None:
        """Have another height, and a projector's type or the usual; what is drawn next has it."""
        self._room = Room(height, big)
        self.figure.update_layout(height=height)

    def _measured(self, shown: Sequence[Drawn], axis: Axis) -> dict[tuple[Any, ...], Line]:
        points: dict[tuple[Any, ...], Line] = {}
        for one in shown:
            points[TRAFFIC, one.slot] = lines.traffic_line(one.record, axis)
            points[TIME, one.slot] = lines.time_line(one.record, axis)
            for tier, line in lines.acceptance_lines(one.record, axis).items():
                points[KEPT, one.slot, tier] = line
        return points

    def _send(self, key: Any, trace: Any, line: Line, grey: bool) -> None:
        """Give a trace its points, if they are new."""
        if self._sent.get(key) == (line, grey):
            return
        self._sent[key] = line, grey
        trace.x, trace.y, trace.opacity = list(line.x), list(line.y), 0.35 if grey else 1.0

    def _scale(self, points: Mapping[tuple[Any, ...], Line], end: float, axis: Axis) -> None:
        """Ranges that hold every line, and the labels right of them."""
        left = -PREFILL_ROOM * end if axis == "tokens" else 0.0
        for row in ROWS:
            top = max((max(line.y) for key, line in points.items() if key[0] == row and line.y),
                      default=0.0)  # fmt: skip
            high = 105.0 if row == KEPT else (1.12 * top or 1.0)
            # a line at 0 is drawn above the axis, not into it
            ranges = ([left, end * _LABEL_ROOM], [-BELOW * high, high])
            if self._sent.get(("range", row)) == ranges:
                continue
            self._sent["range", row] = ranges
            number = "" if row == 1 else row
            self.figure.layout[f"xaxis{number}"].range = ranges[0]
            self.figure.layout[f"yaxis{number}"].range = ranges[1]

    def _annotate(
        self,
        points: Mapping[tuple[Any, ...], Line],
        names: Mapping[int, str],
        axis: Axis,
        step: float,
    ) -> None:
        """Titles, and a label at the end of each line, which follows it in steps.

        A browser takes half as long again for a drawing that moves a label.
        """
        notes = [title(self._room, row, _TITLES[axis][row]) for row in ROWS]
        for row in ROWS:
            high = self._sent["range", row][1][1]
            # a tier is said once: lines of one tier are told apart by their colours
            ends = {
                key[2] if row == KEPT else key: End(
                    line.x[-1], _stepped(line.y[-1], step * high), _words(key, names)
                )
                for key, line in points.items()
                if key[0] == row and line.x and (row != KEPT or key[1] != MODELLED)
            }
            notes += labels(self._room, row, [*ends.values()], high)
        self._write(notes)
        words = _X_TITLES[axis]
        if self._sent.get("title") != words:
            self._sent["title"] = words
            self.figure.layout.xaxis3.title.text = words

    def _write(self, notes: list[dict[str, Any]]) -> None:
        """Send what is new of the texts: a browser moves one sooner than it makes all anew."""
        sent = self._sent.get("notes", [])
        self._sent["notes"] = notes
        if len(sent) != len(notes):
            self.figure.layout.annotations = notes
            return
        for note, old, new in zip(self.figure.layout.annotations, sent, notes, strict=True):
            note.update({name: value for name, value in new.items() if value != old[name]})

    def _add(self, key: tuple[Any, ...], trace: Any) -> None:
        self.figure.add_trace(trace, row=key[0], col=1)
        self._traces[key] = self.figure.data[-1]

    def _lay_out(self) -> None:
        figure = self.figure
        figure.update_layout(
            height=HEIGHT, autosize=True, margin=MARGIN, showlegend=False, hovermode="closest",
            paper_bgcolor=CLEAR, plot_bgcolor=CLEAR, font={"color": INK, "size": 11},
        )  # fmt: skip
        figure.update_xaxes(gridcolor=GRID, linecolor=FAINT, zeroline=False, showticklabels=False)
        figure.update_yaxes(gridcolor=GRID, linecolor=FAINT, rangemode="tozero", nticks=4)
        figure.update_xaxes(
            title_text=_X_TITLES["tokens"], title_standoff=2, showticklabels=True, row=KEPT, col=1
        )
        for row, domain in DOMAINS.items():
            figure.update_yaxes(domain=domain, row=row, col=1)


def _words(key: tuple[Any, ...], names: Mapping[int, str]) -> str:
    """What a line is called."""
    if key[0] == KEPT:
        return TIERS[key[2]].name
    return MODELLED if key[1] == MODELLED else signed(key[1], in_lines(html.escape(names[key[1]])))


def _solid(slot: int) -> Any:
    style = RUNS[slot]
    return go.Scatter(
        x=[], y=[], mode="lines", line={"color": style.colour, "width": 2.5},
        hovertemplate="%{x:.3g}: %{y:.3g}<extra></extra>",
    )  # fmt: skip


def _dashed(slot: int, tier: int) -> Any:
    style = RUNS[slot]
    return go.Scatter(
        x=[], y=[], mode="lines+markers",
        line={"color": style.colour, "width": 2, "dash": _DASHES[tier]},
        marker={"symbol": TIERS[tier].marker, "size": 6, "color": style.colour},
        hovertemplate=f"{TIERS[tier].name}: %{{y:.0f}} % kept<extra></extra>",
    )  # fmt: skip


def _dotted() -> Any:
    return go.Scatter(
        x=[], y=[], mode="lines", line={"color": FAINT, "width": 1.5, "dash": "dot"},
        hovertemplate="modelled: %{y:.3g}<extra></extra>",
    )  # fmt: skip


def _prefill_of(shown: Sequence[Drawn]) -> float:
    """Seconds that the newest run's prefill took: where a modelled line begins on a clock."""
    read = [one.record for one in shown if one.record.prefill is not None]
    newest = max(read, key=lambda record: record.number, default=None)
    return newest.prefill.seconds if newest is not None and newest.prefill is not None else 0.0


def _modelled(
    predicted: Predicted | None, tokens: int, axis: Axis, start: float
) -> dict[tuple[Any, ...], Line]:
    if predicted is None:
        return {}
    moved, spent = predicted.link_bytes * tokens / 1e6, predicted.ms * tokens
    if axis == "seconds":
        x = (start, start + spent / 1e3)
        points: dict[tuple[Any, ...], Line] = {(TIME, MODELLED): Line(x, (0.0, float(tokens)))}
    else:
        x = (0.0, float(tokens))
        points = {
            (TRAFFIC, MODELLED): Line(x, (0.0, moved)),
            (TIME, MODELLED): Line(x, (0.0, spent)),
        }
    for tier, share in predicted.kept.items():
        points[KEPT, MODELLED, tier] = Line(x, (share, share))
    return points


def _stepped(value: float, step: float) -> float:
    """``value`` to the nearest step; as it is where there are none."""
    return round(value / step) * step if step else value
