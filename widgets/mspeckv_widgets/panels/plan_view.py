"""`PlanView`: what the planner chose, and what more memory would buy; modelled throughout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as ipw
import plotly.graph_objects as go

from mspeckv.settings import METHODS, check_kind
from mspeckv_study.whatif.search import Choice, DevicePlan
from mspeckv_widgets.charts.chart_lines import style
from mspeckv_widgets.charts.figure import LOG_AXIS, Figure, lay_out
from mspeckv_widgets.charts.table import table_html
from mspeckv_widgets.panel import HasPanel, panel

_GIGA = 1e9


class PlanView(HasPanel):
    """The Pareto front of memory against time, the choice, and the best of every method.

    Show it by making it a cell's last expression.

    Args:
        found: from `mspeckv.plan`.
    """

    def __init__(self, found: DevicePlan) -> None:
        check_kind("found", found, DevicePlan, "what mspeckv.plan gives")
        self.figure: Any = Figure(_front_figure(found))
        self._table = ipw.HTML(best_html(found))
        self.panel = panel("Plan", [self.figure, self._table], self._resize)

    def _resize(self, room: int) -> None:
        """Keep the figure within a narrow panel of ``room`` pixels; 0: it is wide."""
        self.figure.update_layout(autosize=not room, width=room or None)


def _front_figure(found: DevicePlan) -> Any:
    figure = go.Figure()
    for method in METHODS:
        mine = [one for one in found.front if one.method == method]
        if mine:
            signs = style(method)
            _add(figure, f"{method} (modelled)", mine, signs.colour, signs.marker, 8)
    _add(figure, "the choice (modelled)", [found.choice], "#CC79A7", "star", 16)
    title = f"{found.model}, {found.prefill} tokens, {found.hardware}: nothing smaller is as fast"
    lay_out(figure, title, 420)
    figure.update_layout(margin={"b": 90})
    figure.update_xaxes(title_text="device memory, GB (modelled)")
    figure.update_yaxes(title_text="ms per token (modelled, log)", **LOG_AXIS)
    return figure


def _add(
    figure: Any, name: str, rows: Sequence[Choice], colour: str, symbol: str, size: int
) -> None:
    figure.add_scatter(
        name=name,
        mode="markers",
        x=[one.device_bytes / _GIGA for one in rows],
        y=[one.ms_per_token for one in rows],
        text=[_words(one) for one in rows],
        marker={"color": colour, "symbol": symbol, "size": size},
        hovertemplate="%{text}<br>%{x:.2f} GB, %{y:.1f} ms per token (modelled)<extra></extra>",
    )


def _words(one: Choice) -> str:
    """A setting in a few words."""
    width = "float" if one.bits == "full" else f"int{one.bits}"
    lengths = f", gamma {one.gamma}" if one.method != "autoregressive" else ""
    return f"{one.method}, {width}, {one.on_chip}+{one.resident}{lengths}"


def best_html(found: DevicePlan) -> str:
    """The fastest setting of every method that fits, fastest first."""
    rows = []
    for one in sorted(found.best.values(), key=lambda each: each.ms_per_token):
        plain = one.prediction.equal_memory
        same = f"{plain.ms_per_token:.1f}" if plain is not None and plain.fits else "does not fit"
        rows.append(
            (
                _words(one),
                f"{one.offloaded}",
                f"{one.device_bytes / _GIGA:.2f}",
                f"{one.ms_per_token:.2f}",
                same,
            )
        )
    heads = (
        "fastest of each method", "offloaded layers", "device GB", "ms per token",
        "plain float decoding in these GB, ms per token",
    )  # fmt: skip
    caption = f"{found.device_bytes / _GIGA:.4g} GB, link {found.link_gbps:.4g} GB/s (modelled)"
    return table_html(caption, heads, rows, text=1)
