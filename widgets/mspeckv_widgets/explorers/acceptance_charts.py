"""What `AcceptanceExplorer` draws: a place's rows as bars and a table, and the test of a guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from numpy.typing import NDArray
from plotly.subplots import make_subplots

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
    "left": ("max(0, p - q): what the draft gives too little of", "#E69F00", "/"),
}
"""Words, colour and pattern of each bar; colours of target and draft are those of their tiers."""
DRAWN, ACCEPT, REJECT, EVEN = range(len(SERIES), len(SERIES) + 4)
"""Traces after the bars: the share emitted so far; both sides of the test; its number."""

_WIDTH = 0.2
_DIM = 0.3
"""Opacity of bars that a step does not look at."""
_ROOM = 1.15
_NOWHERE = np.array([np.nan])


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
        others: whether the last row is all tokens that have none of their own.
    """

    names: tuple[str, ...]
    p: Floats
    q: Floats
    both: Floats
    left: Floats
    emitted: Floats
    drawn: Floats
    others: bool


@dataclass(frozen=True)
class Look:
    """What a step looks at.

    Attributes:
        chance: of acceptance, of the guess that is proposed; None before there is one.
        even: the number that decides, drawn evenly from 0 to 1; None before the test.
        lit: rows by series; where there is none, no bar is dimmed.
    """

    chance: float | None = None
    even: float | None = None
    lit: Mapping[str, int] = field(default_factory=dict)


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
        listed,
        p=gather(p),
        q=gather(q),
        both=gather(both),
        left=gather(left),
        emitted=gather(emitted_distribution(p, q)),
        drawn=gather(drawn),
        others=not whole,
    )


def build_figure() -> Any:
    """Four bars a token and a marker for the share drawn so far; below them the test of a guess."""
    figure = Figure(
        make_subplots(
            rows=2, cols=1, row_heights=[0.87, 0.13], vertical_spacing=0.22,
            subplot_titles=("Target, draft, and what is emitted", "The test of this guess"),
        )
    )  # fmt: skip
    for slot, (words, colour, pattern) in enumerate(SERIES.values()):
        figure.add_trace(
            go.Bar(
                name=words, offset=_left_edge(slot), width=_WIDTH,
                marker={"color": colour, "pattern": {"shape": pattern, "size": 5}},
                hovertemplate="%{customdata}: %{y:.4f}<extra>%{fullData.name}</extra>",
            ),
            row=1, col=1,
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            name="share emitted so far (measured), over p", mode="markers",
            marker={"symbol": "diamond-open", "size": 11, "color": INK, "line": {"width": 2}},
            hovertemplate="%{customdata}: %{y:.4f}<extra>emitted</extra>",
        ),
        row=1, col=1,
    )  # fmt: skip
    _add_test(figure)
    lay_out(figure, "", 500)
    figure.update_layout(barmode="group", bargap=0.25, margin={"t": 30, "b": 120})
    figure.update_annotations(font={"size": 13, "color": INK}, x=0, xanchor="left")
    figure.update_xaxes(title_text="token", row=1, col=1)
    figure.update_yaxes(title_text="probability", row=1, col=1)
    figure.update_xaxes(title_text="u, drawn evenly from 0 to 1", range=[0, 1], row=2, col=1)
    figure.update_yaxes(visible=False, range=[-0.5, 0.75], fixedrange=True, row=2, col=1)
    return figure


def _add_test(figure: Any) -> None:
    """A bar from 0 to 1 in two parts, and the number that falls on one of them."""
    sides = (
        ("u below min(1, p / q): accept", TIERS[2].colour, ""),
        ("u above: reject", TIERS[0].colour, "/"),
    )
    for words, colour, pattern in sides:
        figure.add_trace(
            go.Bar(
                name=words, orientation="h", y=[0], x=_NOWHERE, offset=-0.4, width=0.8,
                marker={"color": colour, "pattern": {"shape": pattern, "size": 5}},
                hovertemplate=f"{words}, chance %{{x:.4f}}<extra></extra>",
            ),
            row=2, col=1,
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            name="u of this guess", mode="markers", x=_NOWHERE, y=[0.55], cliponaxis=False,
            marker={"symbol": "triangle-down", "size": 14, "color": INK},
            hovertemplate="u = %{x:.4f}<extra></extra>",
        ),
        row=2, col=1,
    )  # fmt: skip


def draw_rows(figure: Any, rows: Rows, look: Look) -> None:
    """Put rows into the figure, and light the bars that a step looks at."""
    places = np.arange(len(rows.names))
    labels = labels_of(rows)
    with figure.batch_update():
        for slot, name in enumerate(SERIES):
            bars = figure.data[slot]
            bars.x, bars.y, bars.customdata = places, getattr(rows, name), labels
            dim = np.full(len(places), _DIM if look.lit else 1.0)
            if name in look.lit:
                dim[look.lit[name]] = 1.0
            bars.marker.opacity = dim
        drawn = figure.data[DRAWN]
        # over the bar that it should come to
        drawn.x, drawn.y = places + _left_edge(0) + _WIDTH / 2, rows.drawn
        drawn.customdata = labels
        axis = figure.layout.xaxis
        axis.tickmode, axis.tickvals, axis.ticktext = "array", places, labels
        axis.range = [-0.5, len(places) - 0.5]
        figure.layout.yaxis.range = [0, top_of(rows)]
        _draw_test(figure, look)


def _draw_test(figure: Any, look: Look) -> None:
    accept, reject, even = (figure.data[place] for place in (ACCEPT, REJECT, EVEN))
    if look.chance is None:
        accept.x, reject.base, reject.x = _NOWHERE, None, _NOWHERE
    else:
        accept.x, reject.base, reject.x = [look.chance], [look.chance], [1 - look.chance]
    even.x = _NOWHERE if look.even is None else [look.even]


def top_of(rows: Rows) -> float:
    """The scale's end: what tokens with a row of their own need, for all others are many.

    It does not follow the share emitted, which after a first guess is 1.
    """
    last = -1 if rows.others else None
    return _ROOM * float(max(rows.p[:last].max(), rows.q[:last].max()))


def labels_of(rows: Rows) -> list[str]:
    """A label for each row; the others' says what they come to where they leave the scale."""
    labels = [f"{place + 1}: {name}" for place, name in enumerate(rows.names)]
    if rows.others and max(rows.p[-1], rows.q[-1]) > top_of(rows):
        labels[-1] += f",<br>p {rows.p[-1]:.2f}, q {rows.q[-1]:.2f}"
    return labels


def _left_edge(slot: int) -> float:
    return _WIDTH * (slot - len(SERIES) / 2)


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
        "of acceptance, that of max(0, p - q) the chance of rejection. The residual is max(0, p - "
        "q) divided by its sum: from it a rejected guess is replaced."
    )
    return table_html(caption, heads, cells, 1)


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"
