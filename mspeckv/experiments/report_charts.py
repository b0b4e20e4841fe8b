"""The charts of a report, as plotly figures; needs the extra ``lab``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mspeckv.experiments.matching import Match
from mspeckv.experiments.report_series import (
    Line,
    accepted_lines,
    axis_labels,
    axis_title,
    published_speed_lines,
    speed_lines,
    speedup_lines,
    traffic_lines,
)
from mspeckv.experiments.report_style import INK, style
from mspeckv.experiments.statistics import CONFIDENCE


def speed_figure(match: Match) -> Any:
    """Tokens per second, ours beside the published ones: each on a scale of its own."""
    panels = {
        f"ours ({match.table.clock})": speed_lines(match),
        "published": published_speed_lines(match),
    }
    title = "Speed; bars are the standard deviation over seeds"
    return _figure(match, panels, title, "tokens/s")


def speedup_figure(match: Match) -> Any:
    """Speed-ups, ours and the published ones on one scale, a panel per reference."""
    panels = {f"over {name}": speedup_lines(match, name) for name in match.references}
    title = f"Speed-up ({match.table.clock}); bars are the {CONFIDENCE:.0%} bootstrap interval"
    figure = _figure(match, panels, title, "times as fast")
    figure.add_hline(y=1, line={"color": "#6b7280", "width": 1})
    return figure


def accepted_figure(match: Match) -> Any:
    """Guesses that tier 2 kept per round."""
    gamma = match.experiment.preset.speculation.gamma
    title = f"Guesses kept per round, of {gamma} (counted); bars are the standard deviation"
    return _figure(match, {"": accepted_lines(match)}, title, "tokens per round")


def traffic_figure(match: Match) -> Any:
    """KV bytes per token: over the link, and read by each tier."""
    panels = {"over the link": traffic_lines(match, None)}
    panels |= {f"read by tier {tier}": traffic_lines(match, tier) for tier in (0, 1, 2)}
    return _figure(match, panels, "KV per token while decoding (counted)", "MB per token")


CHARTS: dict[str, Callable[[Match], Any]] = {
    "speed": speed_figure,
    "speed-up": speedup_figure,
    "kept": accepted_figure,
    "traffic": traffic_figure,
}
"""What draws each chart of an experiment."""


def trace(line: Line, labels: Sequence[str]) -> Any:
    """A line's points over their places; those that are not ours are thin, with open markers."""
    signs, ours = style(line.variant), line.source == "ours"
    return go.Scatter(
        x=list(range(len(line.means))),
        y=list(line.means),
        error_y=bars(line),
        mode="lines+markers",
        name=line.name,
        legendgroup=line.name,
        opacity=1.0 if ours else 0.65,
        line={
            "color": signs.colour,
            "dash": signs.dash if ours else "dot",
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


def _figure(match: Match, panels: dict[str, list[Line]], title: str, unit: str) -> Any:
    """Panels side by side. Their x is places, not numbers: ours stand for the published ones."""
    figure = make_subplots(
        rows=1,
        cols=len(panels),
        subplot_titles=list(panels),
        horizontal_spacing=0.15 / len(panels),
    )
    labels, shown = axis_labels(match), set[str]()
    for column, lines in enumerate(panels.values(), 1):
        for line in lines:
            if not line.empty:
                figure.add_trace(trace(line, labels), row=1, col=column)
                figure.data[-1].showlegend = line.name not in shown
                shown.add(line.name)
    figure.update_xaxes(
        tickmode="array",
        tickvals=list(range(len(labels))),
        ticktext=labels,
        range=[-0.3, len(labels) - 0.7],
        title_text=axis_title(match),
        title_standoff=6,
    )
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text=unit, col=1)
    figure.update_layout(
        title={"text": title, "x": 0, "xref": "paper", "font": {"size": 15}},
        template="plotly_white",
        height=440,
        autosize=True,
        margin={"l": 60, "r": 15, "t": 75, "b": 60},
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"},
        font={"size": 13, "color": INK},
    )
    return figure
