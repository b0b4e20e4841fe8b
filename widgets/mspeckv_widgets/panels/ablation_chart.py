"""The chart of `Ablation`: speed, speed-up and bytes of an experiment along its axis.

Traces are made once, empty; drawing replaces their arrays inside one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plotly.subplots import make_subplots

from mspeckv_study.experiments import VARIANTS, Match
from mspeckv_study.experiments.ablations import axis_words
from mspeckv_widgets.charts.chart_lines import (
    Line,
    Source,
    axis_labels,
    published_speed_lines,
    speed_lines,
    speedup_lines,
    traffic_lines,
)
from mspeckv_widgets.charts.figure import Figure, lay_out
from mspeckv_widgets.charts.report_charts import bars, trace

PLACES = {"speed": (1, 1), "published": (1, 2), "speed-up": (2, 1), "link": (2, 2)}
"""Panels, by row and column."""
SOURCES: dict[str, tuple[Source, ...]] = {
    "speed": ("ours",),
    "published": ("published", "modelled"),
    "speed-up": ("ours", "published", "modelled"),
    "link": ("ours",),
}
UNITS = {
    "speed": "tokens/s",
    "published": "tokens/s",
    "speed-up": "times as fast",
    "link": "MB per token",
}


class AblationChart:
    """The figure and what draws into it.

    Args:
        title: over the whole chart.
        match: what is drawn first.

    Attributes:
        figure: the widget to display.
    """

    def __init__(self, title: str, match: Match | None) -> None:
        # Drawn once before it is a widget: a browser may miss changes from before it is shown.
        self.figure: Any = make_subplots(
            rows=2, cols=2, subplot_titles=list(PLACES), vertical_spacing=0.26,
            horizontal_spacing=0.12,
        )  # fmt: skip
        self._traces: dict[tuple[str, Source, str], Any] = {}
        for panel, sources in SOURCES.items():
            for source in sources:
                for variant in VARIANTS:
                    self._add(panel, Line(variant, source, (), (), ()))
        lay_out(self.figure, "", 700)
        self.figure.update_layout(legend={"traceorder": "normal"}, margin={"t": 70, "b": 90})
        self.figure.update_annotations(font={"size": 12})
        self.figure.update_xaxes(tickmode="array", title_standoff=4, zeroline=False)
        self.figure.update_yaxes(rangemode="tozero", title_standoff=4)
        for panel, (row, column) in PLACES.items():
            self.figure.update_yaxes(title_text=UNITS[panel], row=row, col=column)
        self.draw(title, match)
        self.figure = Figure(self.figure)
        self._traces = dict(zip(self._traces, self.figure.data, strict=True))

    def draw(self, title: str, match: Match | None) -> None:
        """Show an experiment, or nothing."""
        panels = {panel: [] for panel in PLACES} if match is None else lines_of(match)
        found = {
            (panel, line.source, line.variant): line
            for panel, lines in panels.items()
            for line in lines
            if not line.empty
        }
        labels = [] if match is None else axis_labels(match)
        words = "" if match is None else axis_words(match.table.axis)
        with self.figure.batch_update():
            self.figure.layout.title.text = title
            names = _titles(match)
            for place, panel in enumerate(PLACES):
                self.figure.layout.annotations[place].text = names[panel]
            for axis in ("xaxis", "xaxis2", "xaxis3", "xaxis4"):
                self.figure.layout[axis].tickvals = list(range(len(labels)))
                self.figure.layout[axis].ticktext = labels
                self.figure.layout[axis].range = [-0.3, max(len(labels), 1) - 0.7]
                self.figure.layout[axis].title.text = words
            shown = set[str]()
            for key, drawn in self._traces.items():
                self._fill(drawn, found.get(key), labels, shown)

    def _fill(self, drawn: Any, line: Line | None, labels: Sequence[str], shown: set[str]) -> None:
        drawn.x = list(range(len(labels))) if line is not None else []
        drawn.y = list(line.means) if line is not None else []
        drawn.customdata = [label.replace("<br>", " ") for label in labels] if line else []
        if line is not None:
            drawn.error_y.update(bars(line))
        # a line that several panels share stands in the legend once
        drawn.showlegend = line is not None and line.name not in shown
        if line is not None:
            shown.add(line.name)

    def _add(self, panel: str, line: Line) -> None:
        row, column = PLACES[panel]
        self.figure.add_trace(trace(line, ()), row=row, col=column)
        self._traces[panel, line.source, line.variant] = self.figure.data[-1]


def lines_of(match: Match) -> dict[str, list[Line]]:
    """Every panel's lines."""
    return {
        "speed": speed_lines(match),
        "published": published_speed_lines(match),
        "speed-up": speedup_lines(match, match.references[0]),
        "link": traffic_lines(match, None),
    }


def _titles(match: Match | None) -> dict[str, str]:
    clock = "measured" if match is None else match.table.clock
    over = "" if match is None else f" over {match.references[0]}"
    return {
        "speed": f"Speed, ours ({clock})",
        "published": "Speed, published (no markers: modelled)",
        "speed-up": f"Speed-up{over} ({clock})",
        "link": "KV over the link (counted)",
    }
