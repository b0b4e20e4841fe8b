"""The charts of a report, as plotly figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mspeckv_study.experiments.ablations import axis_words
from mspeckv_study.experiments.matching import Match
from mspeckv_widgets.charts.chart_lines import (
    INK,
    Line,
    accepted_lines,
    axis_labels,
    published_speed_lines,
    speed_lines,
    speedup_lines,
    style,
    tier_lines,
    traffic_lines,
)

TIERS = (0, 1, 2)
ROW_PIXELS = 400
NOTHING = "no row shows this yet"
BARS = "bars are the interval of the median (published: the standard deviation)"


@dataclass(frozen=True)
class Chart:
    """A figure and its title, which pages set as text, since plotly does not wrap one."""

    title: str
    figure: Any


def speed_chart(match: Match) -> Chart:
    """Tokens per second, ours beside the published ones: each on a scale of its own."""
    panels = {
        f"ours ({match.table.clock})": speed_lines(match),
        "published, and modelled for that machine": published_speed_lines(match),
    }
    figure = _figure(match, panels, "tokens/s")
    return Chart(f"Speed; {BARS}", figure)


def speedup_chart(match: Match) -> Chart:
    """Speed-ups, ours and the published ones on one scale, a panel per reference."""
    panels = {f"over {name}": speedup_lines(match, name) for name in match.references}
    figure = _figure(match, panels, "times as fast")
    figure.add_hline(y=1, line={"color": "#6b7280", "width": 1})
    title = f"Speed-up ({match.table.clock}), geometric mean; {BARS}"
    return Chart(title, figure)


def accepted_chart(match: Match) -> Chart:
    """Guesses that tier 2 kept per round."""
    figure = _figure(match, {"": accepted_lines(match)}, "tokens per round")
    return Chart(f"Guesses kept per round (counted); {BARS}", figure)


def time_chart(match: Match) -> Chart:
    """Where the time goes: each tier's passes."""
    panels = {f"tier {tier}": tier_lines(match, tier) for tier in TIERS}
    figure = _figure(match, panels, "ms per token")
    clock = match.table.clock
    return Chart(f"Time per token by tier, waits for the link included ({clock})", figure)


def traffic_chart(match: Match) -> Chart:
    """KV bytes per token: over the link, and read by each tier."""
    panels = {"over the link": traffic_lines(match, None)}
    panels |= {f"read by tier {tier}": traffic_lines(match, tier) for tier in TIERS}
    figure = _figure(match, panels, "MB per token")
    return Chart("KV per token while decoding (counted)", figure)


CHARTS: dict[str, Callable[[Match], Chart]] = {
    "speed": speed_chart,
    "speed-up": speedup_chart,
    "guesses kept": accepted_chart,
    "time by tier": time_chart,
    "traffic": traffic_chart,
}
"""What draws each chart of an experiment."""


def trace(line: Line, labels: Sequence[str]) -> Any:
    """A line's points over their places: published ones are open, modelled ones a thin line."""
    signs, ours = style(line.variant), line.source == "ours"
    dashes = {"ours": signs.dash, "published": "dot", "modelled": "dashdot"}
    return go.Scatter(
        x=list(range(len(line.means))),
        y=list(line.means),
        error_y=bars(line),
        mode="lines" if line.source == "modelled" else "lines+markers",
        name=line.name,
        legendgroup=line.name,
        opacity=1.0 if ours else 0.65,
        line={
            "color": signs.colour,
            "dash": dashes[line.source],
            "width": 2.5 if ours else 1.5,
        },
        marker={"symbol": signs.marker if ours else f"{signs.marker}-open", "size": 10},
        customdata=[label.replace("<br>", " ") for label in labels],
        hovertemplate=f"{line.name} at %{{customdata}}: %{{y:.3g}}<extra></extra>",
    )


def bars(line: Line) -> dict[str, Any]:
    """A line's error bars, as plotly has them."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [size or 0.0 for size in line.up],
        "arrayminus": [size or 0.0 for size in line.down],
        "visible": any(size for size in (*line.up, *line.down)),
    }


def _figure(match: Match, panels: dict[str, list[Line]], unit: str) -> Any:
    """Panels, two to a row. Their x is places, not numbers: ours stand for the published ones."""
    panels = {name: lines for name, lines in panels.items() if not all(x.empty for x in lines)}
    panels = panels or {NOTHING: []}
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=list(panels),
        horizontal_spacing=0.09,
        vertical_spacing=0.22,
    )
    labels, shown = axis_labels(match), set[str]()
    for place, lines in enumerate(panels.values()):
        row, column = place // columns + 1, place % columns + 1
        for line in lines:
            if not line.empty:
                figure.add_trace(trace(line, labels), row=row, col=column)
                figure.data[-1].showlegend = line.name not in shown
                shown.add(line.name)
    figure.update_xaxes(
        tickmode="array",
        tickvals=list(range(len(labels))),
        ticktext=labels,
        range=[-0.3, len(labels) - 0.7],
        title_text=axis_words(match.table.axis),
        title_standoff=6,
    )
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text=unit, col=1)
    figure.update_layout(
        template="plotly_white",
        height=ROW_PIXELS * rows,
        autosize=True,
        margin={"l": 60, "r": 15, "t": 35, "b": 60},
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"},
        font={"size": 13, "color": INK},
    )
    return figure
