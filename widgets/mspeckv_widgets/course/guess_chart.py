"""A class's guesses as a chart: a histogram of numbers, or a bar for each choice."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mspeckv_widgets.charts.figure import LOG_AXIS, Figure, lay_out
from mspeckv_widgets.charts.theme import INK
from mspeckv_widgets.course.predict import words_of
from mspeckv_widgets.course.progress import Answer

DECADES = 20.0
"""The axis is logarithmic where the largest guess is so many times the smallest, or more."""

_GUESSES, _RESULT = "#0072B2", "#D55E00"
_HEIGHT = 230


@dataclass(frozen=True)
class Bins:
    """A histogram.

    Attributes:
        edges: from the lowest to the highest, one more than there are bins.
        counts: guesses from an edge up to the next one; the last bin holds its upper edge too.
        log: whether the bins are equally wide on a logarithmic axis.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    log: bool


def bins_of(numbers: Sequence[float]) -> Bins:
    """A histogram of numbers, in equal steps, or in equal factors where they span decades."""
    low, high = min(numbers), max(numbers)
    log = low > 0 and high / low >= DECADES
    many = min(12, max(4, math.ceil(2 * math.sqrt(len(numbers)))))
    if log:
        edges = np.geomspace(low, high, many + 1)
    else:
        room = (high - low) or abs(high) or 1.0
        start = low if high > low else low - room / 2
        edges = np.linspace(start, start + room, many + 1)
    # rounding must not leave the outermost guesses out
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    counts, _ = np.histogram(numbers, edges)
    return Bins(tuple(edges.tolist()), tuple(counts.tolist()), log)


def draw(name: str, guesses: Sequence[Answer], result: Answer | None, unit: str) -> Any:
    """The chart of one prediction's guesses, of which there is at least one.

    Args:
        result: marked where it is known.
    """
    numbers = [guess for guess in guesses if not isinstance(guess, str)]
    figure = Figure()
    if len(numbers) == len(guesses):
        _draw_numbers(figure, numbers, result, unit)
    else:
        _draw_choices(figure, [words_of(guess, unit) for guess in guesses], result)
    figure.update_yaxes(title_text="students", tickformat="d", rangemode="tozero")
    lay_out(figure, f"{name}: guesses of the class", _HEIGHT)
    figure.update_layout(showlegend=False, bargap=0.06)
    return figure


def _draw_numbers(figure: Any, numbers: Sequence[float], result: Answer | None, unit: str) -> None:
    bins = bins_of(numbers)
    edges = np.asarray(bins.edges)
    words = [
        f"{words_of(low, unit)} to {words_of(high, unit)}: {many}"
        for low, high, many in zip(bins.edges, bins.edges[1:], bins.counts, strict=False)
    ]
    figure.add_bar(
        x=(edges[:-1] + edges[1:]) / 2, y=bins.counts, width=np.diff(edges), name="guesses",
        hovertext=words, hoverinfo="text", marker_color=_GUESSES,
    )  # fmt: skip
    figure.update_xaxes(title_text=f"guess ({unit})" if unit else "guess")
    if bins.log:
        figure.update_xaxes(**LOG_AXIS)
    if result is not None and not isinstance(result, str):
        shown = math.log10(result) if bins.log and result > 0 else result
        if not bins.log or result > 0:
            figure.add_shape(
                type="line", x0=result, x1=result, y0=0, y1=1, yref="paper",
                line={"color": _RESULT, "width": 3, "dash": "dash"},
            )  # fmt: skip
            figure.add_annotation(
                x=shown, y=1, yref="paper", yanchor="bottom", showarrow=False,
                text=f"result: {words_of(result, unit)}", font={"color": INK, "size": 12},
            )  # fmt: skip


def _draw_choices(figure: Any, guesses: Sequence[str], result: Answer | None) -> None:
    counts = Counter(guesses)
    if isinstance(result, str):
        counts.setdefault(result, 0)
    names = sorted(counts)
    marked = [f"{name} (result)" if name == result else name for name in names]
    figure.add_bar(
        x=marked, y=[counts[name] for name in names], name="guesses",
        marker_color=[_RESULT if name == result else _GUESSES for name in names],
        marker_pattern_shape=["/" if name == result else "" for name in names],
    )  # fmt: skip
