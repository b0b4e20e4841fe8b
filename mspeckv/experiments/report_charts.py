"""The charts of a report, as plotly figures; needs the extra ``lab``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mspeckv.experiments.matching import Match
from mspeckv.experiments.report_style import axis_words, style
from mspeckv.experiments.statistics import CONFIDENCE, Outcome, Spread

MEGA = 1e6
Errors = tuple[list[float | None], list[float | None]]
"""How far a point's bar goes up, and down."""


def speed_figure(match: Match) -> Any:
    """Tokens per second, ours beside the published ones: each on a scale of its own."""
    table = match.table
    figure = _panels([f"ours ({table.clock})", "published"], match)
    for variant in table.variants:
        ours = [_outcome(match, value, variant, lambda one: one.speed) for value in table.values]
        _add(figure, 1, match, variant, ours)
        theirs = [match.speed(value, variant) for value in table.values]
        _add(figure, 2, match, variant, theirs, published=True)
    figure.update_yaxes(title_text="tokens/s", rangemode="tozero")
    return _titled(figure, "Speed; bars are the standard deviation over seeds")


def speedup_figure(match: Match) -> Any:
    """Speed-ups, ours and the published ones on one scale, a panel per reference."""
    table = match.table
    figure = _panels([f"over {reference}" for reference in match.references], match)
    for column, reference in enumerate(match.references, 1):
        for variant in table.variants:
            if variant == reference:
                continue
            found = [table.compare(value, variant, reference) for value in table.values]
            ours = [None if one is None else one.speedup.mean for one in found]
            high: list[float | None] = []
            low: list[float | None] = []
            for one in found:
                ends = None if one is None else one.interval
                high.append(None if one is None or ends is None else ends[1] - one.speedup.mean)
                low.append(None if one is None or ends is None else one.speedup.mean - ends[0])
            _draw(figure, column, match, variant, ours, (high, low))
            theirs = [match.speedup(value, variant, reference) for value in table.values]
            _add(figure, column, match, variant, theirs, published=True)
        figure.add_hline(y=1, line={"color": "#6b7280", "width": 1}, row=1, col=column)
    figure.update_yaxes(title_text="times as fast", rangemode="tozero")
    title = f"Speed-up ({table.clock}); bars are the {CONFIDENCE:.0%} bootstrap interval"
    return _titled(figure, title)


def accepted_figure(match: Match) -> Any:
    """Guesses that tier 2 kept per round."""
    table = match.table
    figure = _panels([""], match)
    for variant in table.variants:
        ours = [_outcome(match, value, variant, lambda one: one.accepted) for value in table.values]
        _add(figure, 1, match, variant, ours)
        theirs = [match.accepted(value, variant) for value in table.values]
        _add(figure, 1, match, variant, theirs, published=True)
    figure.update_yaxes(title_text="tokens per round", rangemode="tozero")
    gamma = match.experiment.preset.speculation.gamma
    return _titled(figure, f"Guesses kept per round, of {gamma} (counted)")


def traffic_figure(match: Match) -> Any:
    """KV bytes per token: over the link, and read by each tier."""
    table = match.table
    panels = ["over the link", "read by tier 0", "read by tier 1", "read by tier 2"]
    figure = _panels(panels, match)
    for variant in table.variants:
        for column in range(1, len(panels) + 1):

            def size(one: Outcome, tier: int = column - 2) -> Spread | None:
                return one.link if tier < 0 else one.kv_read.get(tier)

            found = [_outcome(match, value, variant, size) for value in table.values]
            sizes = [None if one is None else one.mean / MEGA for one in found]
            _draw(figure, column, match, variant, sizes)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text="MB per token", col=1)
    return _titled(figure, "KV bytes per token while decoding (counted)")


CHARTS: dict[str, Callable[[Match], Any]] = {
    "speed": speed_figure,
    "speed-up": speedup_figure,
    "kept": accepted_figure,
    "traffic": traffic_figure,
}
"""What draws each chart of an experiment."""


def _panels(titles: Sequence[str], match: Match) -> Any:
    """Panels side by side over the axis' values, which are places, not numbers: they stand for
    the published ones by place.
    """
    figure = make_subplots(
        rows=1, cols=len(titles), subplot_titles=titles, horizontal_spacing=0.3 / len(titles) / 2
    )
    values = match.table.values
    labels = []
    for value in values:
        paper = match.value(value)
        labels.append(f"{value}" if paper in (None, value) else f"{value}<br>({paper})")
    figure.update_xaxes(
        tickmode="array",
        tickvals=list(range(len(values))),
        ticktext=labels,
        range=[-0.3, len(values) - 0.7],
        title_text=axis_words(match.table.axis),
        title_standoff=6,
    )
    return figure


def _add(
    figure: Any,
    column: int,
    match: Match,
    variant: str,
    points: Sequence[Spread | None],
    published: bool = False,
) -> None:
    """Draw means with their standard deviations."""
    means = [None if one is None else one.mean for one in points]
    stds = [None if one is None else one.std for one in points]
    _draw(figure, column, match, variant, means, (stds, stds), published)


def _draw(
    figure: Any,
    column: int,
    match: Match,
    variant: str,
    means: Sequence[float | None],
    errors: Errors | None = None,
    published: bool = False,
) -> None:
    """Add one variant's line to a panel, where it has a point there."""
    if not any(mean is not None for mean in means):
        return
    signs = style(variant)
    name = f"{variant} (published)" if published else variant
    shown = {one.legendgroup for one in figure.data}
    trace = go.Scatter(
        x=list(range(len(means))),
        y=list(means),
        mode="lines+markers",
        name=name,
        legendgroup=name,
        showlegend=name not in shown,
        opacity=0.65 if published else 1.0,
        line={
            "color": signs.colour,
            "dash": "dot" if published else signs.dash,
            "width": 1.5 if published else 2.5,
        },
        marker={"symbol": f"{signs.marker}-open" if published else signs.marker, "size": 10},
        customdata=[[f"{value}"] for value in match.table.values],
        hovertemplate=f"{name}, {axis_words(match.table.axis)} %{{customdata[0]}}: %{{y:.3g}}"
        "<extra></extra>",
    )
    if errors is not None and any(error is not None for error in errors[0]):
        up, down = ([error or 0.0 for error in side] for side in errors)
        trace.error_y = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
    figure.add_trace(trace, row=1, col=column)


def _outcome(
    match: Match, value: int, variant: str, what: Callable[[Outcome], Spread | None]
) -> Spread | None:
    """One figure of a cell, where there is one."""
    found = match.table.cells.get((value, variant))
    return None if found is None else what(found)


def _titled(figure: Any, title: str) -> Any:
    figure.update_layout(
        title={"text": title, "x": 0, "xref": "paper", "font": {"size": 15}},
        template="plotly_white",
        height=430,
        autosize=True,
        margin={"l": 60, "r": 15, "t": 75, "b": 60},
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"},
        font={"size": 13, "color": "#1f2328"},
    )
    return figure
