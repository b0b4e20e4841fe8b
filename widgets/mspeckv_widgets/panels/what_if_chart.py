"""The figures of `WhatIf`: speed along an experiment's axis, where the time goes, and our runs.

Traces are made once, empty; drawing replaces their arrays inside one batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mspeckv.settings import METHODS
from mspeckv_study.experiments import VARIANTS, Match, experiment, published
from mspeckv_study.experiments.ablations import axis_words
from mspeckv_study.whatif import STEPS
from mspeckv_study.whatif import Forecast as WhatIf
from mspeckv_study.whatif.origin import curve
from mspeckv_widgets.charts.chart_lines import speed_lines, style
from mspeckv_widgets.charts.figure import LOG_AXIS, Figure, lay_out
from mspeckv_widgets.charts.report_charts import bars
from mspeckv_widgets.charts.theme import TIERS
from mspeckv_widgets.panels.what_if_setting import PUBLISHED, Floats, places

THIS, TABLE, POINTS = "this setting (modelled)", "the table's (modelled)", "published"
HERE = "this setting, chosen method (modelled)"
_LOOKS: dict[str, tuple[str, str]] = {
    "tier 0 draft": (TIERS[0].colour, ""),
    "tier 1 verify": (TIERS[1].colour, ""),
    "tier 2 compute": (TIERS[2].colour, ""),
    "tier 2 unpack": (TIERS[2].colour, "x"),
    "tier 2 wait": ("#E69F00", "/"),
    "retrieve": (TIERS[1].colour, "."),
    "draw": ("#808080", "-"),
}
"""Colour and pattern of a step: a tier's colour, waiting in the link's."""
_TALL, _BELOW, _COLUMN = 560, 190, 320
"""Pixels: the speed chart, its legend below, and that legend as one column."""


class SpeedChart:
    """Tokens per second along the axis: modelled curves, published points with their bars."""

    def __init__(self) -> None:
        figure = go.Figure()
        for method in METHODS:
            signs = style(method)
            line = {"color": signs.colour, "dash": signs.dash, "width": 2.5}
            figure.add_scatter(name=f"{method}, {THIS}", mode="lines", line=line)
        for method in METHODS:
            line = {"color": style(method).colour, "dash": "dashdot", "width": 1}
            figure.add_scatter(name=f"{method}, {TABLE}", mode="lines", line=line)
        for method in METHODS:
            signs = style(method)
            marker = {"color": signs.colour, "symbol": f"{signs.marker}-open", "size": 10}
            figure.add_scatter(name=f"{method}, {POINTS}", mode="markers", marker=marker)
        star = {"symbol": "star", "size": 15, "color": "#CC79A7"}
        figure.add_scatter(name=HERE, mode="markers", marker=star)
        for trace in figure.data:
            trace.hovertemplate = f"{trace.name}<br>%{{x}}: %{{y:.3g}} tokens/s<extra></extra>"
        lay_out(figure, "", _TALL)
        figure.update_layout(margin={"b": _BELOW}, legend={"traceorder": "normal"})
        figure.update_yaxes(title_text="tokens/s, modelled and published (log)", **LOG_AXIS)
        self.figure: Any = Figure(figure)
        self._shown = ""

    def draw(
        self, name: str, where: Any, speeds: Mapping[str, Floats], here: tuple[float, float]
    ) -> None:
        """Show the setting's curves; what belongs to the experiment only when that has changed.

        Args:
            name: ``A1``, ``A2``, ``B1`` or ``B2``.
            where: places on its axis.
            speeds: tokens per second there, by method.
            here: the setting itself, on the axis and in tokens per second.
        """
        with self.figure.batch_update():
            traces = dict(zip(METHODS, self.figure.data[: len(METHODS)], strict=True))
            for method, trace in traces.items():
                trace.x, trace.y = where, speeds[method]
            self.figure.data[-1].x, self.figure.data[-1].y = [here[0]], [here[1]]
            if name != self._shown:
                self._draw_table(name)
                self._shown = name

    def _draw_table(self, name: str) -> None:
        """What was published, and the model of each published setting."""
        table = published(name)
        count, traces = len(METHODS), self.figure.data
        modelled, points = traces[count : 2 * count], traces[2 * count : 3 * count]
        for method, line, dots in zip(METHODS, modelled, points, strict=True):
            there = method in table.methods
            line.showlegend = dots.showlegend = there
            line.x, line.y = _table_curve(name, method) if there else ([], [])
            cells = [table.speeds[value, method] for value in table.values] if there else []
            dots.x = table.values if there else []
            dots.y = [one.mean for one in cells]
            dots.error_y = {"type": "data", "array": [one.std or 0.0 for one in cells]}
        self.figure.layout.title.text = f"{name}: {experiment(name).question}"
        self.figure.layout.xaxis.title.text = axis_words(experiment(name).axis)

    def fit(self, room: int) -> None:
        """Make place for a legend of one column where the panel is ``room`` pixels wide; 0: wide.

        The other figures' legends are short.
        """
        more = _COLUMN - _BELOW if room else 0
        self.figure.update_layout(height=_TALL + more, margin={"b": _BELOW + more})


@cache
def _table_curve(name: str, method: str) -> tuple[Any, Floats]:
    """The model of the published setting between the published places."""
    values = published(name).values
    where = places(name, PUBLISHED)
    where = where[(where >= min(values)) & (where <= max(values))]
    where = np.union1d(where, values)
    return where, curve(name, method, where)


class StepsChart:
    """Shares of a token's time by step, a bar for each method."""

    def __init__(self) -> None:
        figure = go.Figure()
        for step in STEPS:
            colour, pattern = _LOOKS[step]
            figure.add_bar(
                name=step, orientation="h", y=list(METHODS),
                marker={"color": colour, "pattern": {"shape": pattern}},
                hovertemplate=f"%{{y}}, {step}: %{{x:.1f}} % of the time (modelled)"
                "<extra></extra>",
            )  # fmt: skip
        lay_out(figure, "Where a token's time goes (modelled)", 290)
        figure.update_layout(
            barmode="stack", margin={"b": 100, "l": 100}, legend={"traceorder": "normal"}
        )
        figure.update_xaxes(title_text="% of the time per token, modelled", range=[0, 100])
        figure.update_yaxes(autorange="reversed")
        self.figure: Any = Figure(figure)

    def draw(self, found: Mapping[str, WhatIf]) -> None:
        """Show the shares."""
        with self.figure.batch_update():
            for step, bar in zip(STEPS, self.figure.data, strict=True):
                bar.x = [100 * one.steps[step] / one.ms_per_token for one in found.values()]


class OursChart:
    """Our own runs at classroom size: another machine and other places than the tables'."""

    def __init__(self) -> None:
        figure = go.Figure()
        for variant in VARIANTS:
            signs = style(variant)
            figure.add_scatter(
                name=variant, mode="lines+markers",
                line={"color": signs.colour, "dash": signs.dash, "width": 2},
                marker={"symbol": signs.marker, "size": 9},
            )  # fmt: skip
        lay_out(figure, "", 330)
        figure.update_layout(margin={"b": 110}, legend={"traceorder": "normal"})
        figure.update_yaxes(rangemode="tozero")
        self.figure: Any = Figure(figure)

    def draw(self, name: str, match: Match | None) -> None:
        """Show an experiment's rows, or that there are none."""
        lines = {} if match is None else {one.variant: one for one in speed_lines(match)}
        clock = "" if match is None else match.table.clock
        with self.figure.batch_update():
            for variant, trace in zip(VARIANTS, self.figure.data, strict=True):
                line = lines.get(variant)
                there = match is not None and line is not None and not line.empty
                trace.showlegend = there
                trace.name = f"{variant} ({clock})"
                trace.x = list(match.table.values) if there and match else []
                trace.y = list(line.means) if there and line else []
                if there and line:
                    trace.error_y.update(bars(line))
            self.figure.layout.title.text = (
                f"Ours at classroom size, default pair ({clock})"
                if match
                else f"Ours: no rows of {name} in the results folder"
            )
            self.figure.layout.xaxis.title.text = axis_words(experiment(name).axis)
            self.figure.layout.yaxis.title.text = f"tokens/s, {clock or 'measured'}"
