"""What `AcceptanceExplorer` draws: the rows of a place, their bars, their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from numpy.typing import NDArray

from mspeckv.decoding.sampling import residual
from mspeckv_widgets.charts.figure import Figure, lay_out
from mspeckv_widgets.charts.table import table_html
from mspeckv_widgets.charts.theme import INK, TIERS

Floats = NDArray[np.float64]
MOST_ROWS = 12
SERIES: dict[str, tuple[str, str, str]] = {
    "p": ("p: the target", TIERS[2].colour, ""),
    "q": ("q: the draft", TIERS[0].colour, "."),
    "both": ("min(p, q): guessed and accepted", "#56B4E9", "x"),
    "left": ("max(0, p - q): the residual", "#E69F00", "/"),
}
"""Words, colour and pattern of each bar; colours of target and draft are those of their tiers."""


@dataclass(frozen=True)
class Rows:
    """The tokens that are shown, the likeliest first, and the rest as one row.

    Attributes:
        names: a word for each row.
        p: the target's probability.
        q: the draft's.
        both: ``min(p, q)``, summed over a row's tokens.
        left: ``max(0, p - q)``, likewise.
        emitted: chance that accept/reject emits the row's tokens (exact).
        drawn: share of the emissions so far; NaN before the first.
    """

    names: tuple[str, ...]
    p: Floats
    q: Floats
    both: Floats
    left: Floats
    emitted: Floats
    drawn: Floats


def emitted_distribution(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """What accept/reject emits, ``[V]``, added up over its two ways.

    A token is emitted if it was guessed and accepted, ``q * min(1, p / q) = min(p, q)``, or if a
    guess was rejected, chance ``1 - sum(min(p, q))``, and it was then drawn from the residual.
    """
    both = torch.minimum(p, q)
    left = residual(p, q)
    return both + (1 - both.sum()) * left / left.sum()


def rows_of(
    names: Sequence[str],
    p: torch.Tensor,
    q: torch.Tensor,
    counts: torch.Tensor,
    order: torch.Tensor,
) -> Rows:
    """Gather the tokens in ``order`` as rows, all others as the last row.

    Args:
        names: of the tokens in ``order``.
        p: ``[V]``.
        q: ``[V]``.
        counts: ``[V]``, how often each token was emitted.
        order: ids to show.
    """
    both, left = torch.minimum(p, q), (p - q).clamp_min(0)
    drawn = counts / counts.sum() if counts.sum() else torch.full_like(p, float("nan"))
    whole = len(order) == len(p)

    def gather(values: torch.Tensor) -> Floats:
        shown = values[order].numpy()
        if whole:
            return shown
        return np.append(shown, float(values.sum()) - shown.sum())

    listed = tuple(names) if whole else (*names, f"{len(p) - len(order):,} others")
    return Rows(
        listed, *(gather(part) for part in (p, q, both, left, emitted_distribution(p, q), drawn))
    )


def build_figure() -> Any:
    """Four bars a token, and a marker for the share drawn so far."""
    figure = Figure()
    for words, colour, pattern in SERIES.values():
        figure.add_trace(
            go.Bar(
                name=words,
                marker={"color": colour, "pattern": {"shape": pattern, "size": 5}},
                hovertemplate="%{x}: %{y:.4f}<extra>%{fullData.name}</extra>",
            )
        )
    figure.add_trace(
        go.Scatter(
            name="share emitted so far (measured)", mode="markers",
            marker={"symbol": "diamond-open", "size": 11, "color": INK, "line": {"width": 2}},
            hovertemplate="%{x}: %{y:.4f}<extra>emitted</extra>",
        )
    )  # fmt: skip
    lay_out(figure, "Target, draft, and what is emitted", 400)
    figure.update_layout(barmode="group", bargap=0.25, margin={"b": 110})
    figure.update_xaxes(type="category", title_text="token")
    figure.update_yaxes(title_text="probability", rangemode="tozero")
    return figure


def draw_rows(figure: Any, rows: Rows) -> None:
    """Put rows into the figure."""
    parts = (rows.p, rows.q, rows.both, rows.left, rows.drawn)
    # a category is known by its name alone, so that equal names would share a place
    labels = [f"{place + 1}: {name}" for place, name in enumerate(rows.names)]
    with figure.batch_update():
        for trace, values in zip(figure.data, parts, strict=True):
            trace.x, trace.y = labels, values


def rows_html(rows: Rows) -> str:
    """The figure's numbers, and the sum that proves the rule."""
    heads = ("token", "p", "q", "min(p, q)", "max(0, p - q)", "emitted, exact", "emitted so far")
    numbers = (rows.p, rows.q, rows.both, rows.left, rows.emitted, rows.drawn)
    cells = [
        (f"{place + 1}: {name}", *(_cell(part[place]) for part in numbers))
        for place, name in enumerate(rows.names)
    ]
    cells.append(("sum", *(_cell(part.sum()) for part in numbers)))
    caption = (
        "Probabilities are computed; emitted so far is counted. The sum of min(p, q) is the chance "
        "of acceptance, the residual's sum that of rejection."
    )
    return table_html(caption, heads, cells, 1)


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"
