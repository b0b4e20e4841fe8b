"""`DraftsAtLength`: recorded acceptance against context, two series side by side, and a table."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as ipw
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mspeckv_widgets.at_length import Series, Spread, Text
from mspeckv_widgets.charts.figure import Figure, lay_out
from mspeckv_widgets.charts.table import table_html
from mspeckv_widgets.charts.theme import TIERS
from mspeckv_widgets.explorers.explorer import Explorer, choice
from mspeckv_widgets.panel import panel

WORDS: dict[str, Text] = {
    "the document's own words": "document",
    "the target's own words": "own",
}
TEMPERATURES = {"T = 1": 1, "T = 0": 0}


@dataclass(frozen=True)
class Look:
    """How a guesser is drawn."""

    colour: str
    dash: str
    marker: str


LOOKS = {
    "draft, all": Look(TIERS[0].colour, "solid", "circle"),
    "draft, all, YaRN": Look("#CC79A7", "dashdot", "cross"),
    "draft, sinks and window": Look("#E69F00", "dash", "square"),
    "draft, window": Look("#808080", "dot", "triangle-up"),
    "draft, far sinks and window": Look("#D55E00", "dot", "x"),
    "tier 1, 128": Look("#56B4E9", "dot", "diamond-open"),
    "tier 1, 256": Look(TIERS[1].colour, "dash", "diamond"),
    "tier 1, 512": Look(TIERS[2].colour, "solid", "diamond-wide"),
}
"""Colours go with a dash and a marker. A budget that has no look of its own has the last one's."""


class DraftsAtLength(Explorer):
    """Acceptance of each guesser against the context, with intervals, from recorded rows.

    From code, ``view.set(text=..., temperature=...)`` moves the controls.

    Args:
        series: by the title that each gets.
        guessers: who is shown; None for everybody.
    """

    def __init__(self, series: Mapping[str, Series], guessers: Sequence[str] | None = None) -> None:
        super().__init__()
        self.series = dict(series)
        everybody = (name for one in self.series.values() for name in one.guessers)
        self.guessers = tuple(dict.fromkeys(everybody)) if guessers is None else tuple(guessers)
        self.controls = {
            "text": choice("Asked", list(WORDS.items()), "document"),
            "temperature": choice("Temperature", list(TEMPERATURES.items()), 1),
        }
        self.figure = self._build()
        self._tables = ipw.HTML()
        for control in self.controls.values():
            control.observe(lambda _: self._draw(), names="value")
        self.panel = panel(
            "Acceptance against context",
            [ipw.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"}),
             self._status, self.figure, self._tables],
        )  # fmt: skip
        self._draw()

    def spreads(self, title: str, guesser: str) -> dict[int, Spread]:
        """What is drawn of a guesser, by context."""
        one = self.series[title]
        if guesser not in one.guessers:
            return {}
        text, temperature = (self.controls[name].value for name in ("text", "temperature"))
        return {
            context: one.spread(guesser, context, text, temperature)
            for context in one.contexts
            if one.rates(guesser, context, text, temperature)
        }

    def _build(self) -> Any:
        figure = make_subplots(
            cols=len(self.series), subplot_titles=list(self.series), shared_yaxes=True,
            horizontal_spacing=0.04,
        )  # fmt: skip
        for column in range(1, len(self.series) + 1):
            for name in self.guessers:
                look = LOOKS.get(name, LOOKS["tier 1, 512"])
                figure.add_trace(
                    go.Scatter(
                        name=name, mode="lines+markers", legendgroup=name,
                        showlegend=column == 1,
                        line={"color": look.colour, "dash": look.dash, "width": 2},
                        marker={"symbol": look.marker, "size": 8, "color": look.colour},
                        error_y={"type": "data", "symmetric": False, "thickness": 1, "width": 3},
                        hovertemplate="%{x} tokens: %{y:.2f}<extra>%{fullData.name}</extra>",
                    ),
                    row=1, col=column,
                )  # fmt: skip
        lay_out(figure, "", 470)
        figure.update_annotations(font={"size": 12})
        figure.update_layout(margin={"t": 52, "b": 130})
        figure.update_yaxes(range=[0, 1.02], title_text="")
        figure.update_yaxes(title_text="acceptance rate of a guess", row=1, col=1)
        for column, one in enumerate(self.series.values(), start=1):
            marks = [str(at) if at < 1024 else f"{at // 1024} k" for at in one.contexts]
            figure.update_xaxes(
                type="log", title_text="tokens of context", tickvals=list(one.contexts),
                ticktext=marks, row=1, col=column,
            )  # fmt: skip
        return Figure(figure)

    def _draw(self) -> None:
        with self._lock, self.figure.batch_update():
            traces = iter(self.figure.data)
            for title in self.series:
                for name in self.guessers:
                    trace, found = next(traces), self.spreads(title, name)
                    trace.x = list(found)
                    trace.y = [spread.median for spread in found.values()]
                    trace.error_y.array = [one.high - one.median for one in found.values()]
                    trace.error_y.arrayminus = [one.median - one.low for one in found.values()]
            chosen = {name: control.label for name, control in self.controls.items()}
            self.figure.layout.title.text = f"Guesses of {chosen['text']}, {chosen['temperature']}"
            self._tables.value = "".join(map(self._table, self.series))
        self._say(self._sources())

    def _table(self, title: str) -> str:
        contexts = self.series[title].contexts
        found = {name: self.spreads(title, name) for name in self.guessers}
        rows = [
            (name, *(str(spreads.get(at, "")) for at in contexts))
            for name, spreads in found.items()
            if spreads
        ]
        if not rows:
            return f'<div class="mskv-small">{html.escape(title)}: nothing recorded of this.</div>'
        one = next(spread for spreads in found.values() for spread in spreads.values())
        caption = (
            f"{title}: acceptance rate by tokens of context, the median of {one.count} places and "
            f"an interval that holds it with {one.confidence:.0%} (measured)"
        )
        return table_html(caption, ("guesser", *(f"{at:,}" for at in contexts)), rows, 1)

    def _sources(self) -> str:
        return " ".join(f"{title}: {one.source}." for title, one in self.series.items())
