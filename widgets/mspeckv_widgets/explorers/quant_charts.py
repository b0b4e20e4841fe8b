"""What `QuantExplorer` draws: a head's loss, the figure, and the tables beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from mspeckv import Packing
from mspeckv_study.probes.kv_probe import pack
from mspeckv_widgets.charts.figure import Figure, lay_out
from mspeckv_widgets.charts.table import table_html
from mspeckv_widgets.charts.theme import INK

Floats = NDArray[np.float64]
HEIGHT = 620
"""Pixels: all charts and the controls beside them on one screen of 768."""
MARKS = {"keys": ("#D55E00", "circle"), "values": ("#0072B2", "diamond")}
"""Colour and marker of points where that tensor alone is packed."""

NOWHERE: Floats = np.array([np.nan])
"""In place of no points: plotly passes over an empty trace and loses axes that have no other."""

USUAL = 64
"""Numbers that share a scale where nothing else is said."""
_LOUDEST = 5
_ROOM = 1.3


@dataclass(frozen=True)
class Loss:
    """What packing one head's keys or values loses.

    Attributes:
        sizes: ``[T, D]``, absolute values before.
        errors: ``[T, D]``, absolute errors after.
        channel_range: largest absolute value of each channel.
        channel_error: root mean square error of each channel.
        relative: root mean square error over root mean square value, of the whole head.
        bits: stored bits per number, scales included (counted).
    """

    sizes: Floats
    errors: Floats
    channel_range: Floats
    channel_error: Floats
    relative: float
    bits: float


@dataclass(frozen=True)
class Asked:
    """One packing that the model was asked about.

    Attributes:
        relative: error over value of that tensor, all layers and heads.
        acceptance: see `KVProbe.acceptance`.
    """

    tensor: str
    packing: Packing
    bits: float
    relative: float
    acceptance: float


def head_loss(head: torch.Tensor, packing: Packing) -> Loss:
    """Pack one head's ``[T, D]`` and compare; tokens after the last whole block are left out."""
    packed = pack(head[None], packing)
    before = head[: packed.tokens].double()
    wrong = (packed.tensor[0, : packed.tokens].double() - before).abs()
    return Loss(
        sizes=before.abs().numpy(),
        errors=wrong.numpy(),
        channel_range=before.abs().amax(0).numpy(),
        channel_error=wrong.square().mean(0).sqrt().numpy(),
        relative=float(wrong.norm() / before.norm()),
        bits=8 * packed.bytes / before.numel(),
    )


def packing_name(packing: Packing) -> str:
    """A packing in a few words."""
    if packing.bits == "full":
        return "float"
    width = f"int{packing.bits}" + (", upper nibbles" if packing.upper else "")
    return f"{width}, per {packing.axis}, {packing.group} a scale"


def short_name(packing: Packing) -> str:
    """A packing as a point's label; its group is told where it is not the usual one."""
    if packing.bits == "full":
        return "float"
    width = f"int{packing.bits}{' upper' if packing.upper else ''}"
    return f"{width}, {packing.axis}" + (f", {packing.group}" if packing.group != USUAL else "")


def span_of(asked: Sequence[Asked]) -> tuple[float, float]:
    """Ends of the axis of errors: from 0, with room for the last point's label."""
    return 0.0, 100 * _ROOM * max((one.relative for one in asked), default=0.1) or 1.0


def loss_html(loss: Loss) -> str:
    """The charts' numbers: the whole head, then its loudest channels."""
    typical = float(np.median(loss.channel_range)) or 1.0
    order = np.argsort(-loss.channel_range)[:_LOUDEST]
    rows = [
        (
            "all channels", f"{loss.channel_range.max():.3g}",
            f"{loss.channel_range.max() / typical:.1f}",
            f"{np.sqrt(np.mean(loss.channel_error**2)):.3g}", f"{100 * loss.relative:.2f} %",
            f"{loss.bits:.2f}",
        )
    ]  # fmt: skip
    for channel in order:
        size = float(np.sqrt(np.mean(loss.sizes[:, channel] ** 2))) or 1.0
        rows.append(
            (
                f"channel {channel}", f"{loss.channel_range[channel]:.3g}",
                f"{loss.channel_range[channel] / typical:.1f}",
                f"{loss.channel_error[channel]:.3g}",
                f"{100 * loss.channel_error[channel] / size:.2f} %", "",
            )
        )  # fmt: skip
    heads = (
        "channel", "largest value", "of the median channel's", "error, RMS",
        "error of its values, RMS", "bits a number",
    )  # fmt: skip
    caption = "This head and its loudest channels (values measured, bits counted with scales)"
    return table_html(caption, heads, rows, 1)


def asked_html(asked: list[Asked]) -> str:
    """What the model was asked so far."""
    if not asked:
        return '<em class="mskv-small">Packings that the model is asked about are listed here.</em>'
    heads = ("packed in all layers", "bits a number", "error, RMS", "acceptance")
    rows = [
        (
            f"{one.tensor}: {packing_name(one.packing)}", f"{one.bits:.2f}",
            f"{100 * one.relative:.2f} %", f"{one.acceptance:.3f}",
        )
        for one in asked
    ]  # fmt: skip
    caption = (
        "Acceptance: chance that the model over floats keeps a token that it drew over packed KV "
        "(measured). The other tensor stays float."
    )
    return table_html(caption, heads, rows, 1)


def build_figure() -> Any:
    """Two heat maps, bars by channel, and points of error against acceptance, without data."""
    figure = Figure(
        make_subplots(
            rows=3, cols=2, specs=[[{}, {}], [{"colspan": 2}, None], [{"colspan": 2}, None]],
            vertical_spacing=0.14, horizontal_spacing=0.2, row_heights=[0.36, 0.24, 0.40],
            subplot_titles=("Size", "Error", "Error by channel", "Error against acceptance"),
        )
    )  # fmt: skip
    for column, place in ((1, 0.41), (2, 1.0)):
        figure.add_trace(_heat_map(place), row=1, col=column)
    figure.add_trace(_channel_bars(), row=2, col=1)
    for tensor in MARKS:
        figure.add_trace(_answer_points(tensor), row=3, col=1)
    lay_out(figure, "", HEIGHT)
    figure.update_layout(margin={"t": 30, "b": 62})
    figure.update_annotations(font={"size": 13, "color": INK})
    for column in (1, 2):
        figure.update_xaxes(title_text="channel", row=1, col=column)
    figure.update_yaxes(title_text="token", autorange="reversed", row=1, col=1)
    figure.update_yaxes(autorange="reversed", row=1, col=2)
    figure.update_xaxes(title_text="channel", row=2, col=1)
    figure.update_yaxes(title_text="error, RMS", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="error, RMS, % of values", range=span_of(()), row=3, col=1)
    figure.update_yaxes(title_text="acceptance (measured)", range=[0, 1.15], row=3, col=1)
    return figure


def _heat_map(place: float) -> Any:
    return go.Heatmap(
        z=np.zeros((2, 2)),
        colorscale="Cividis",
        colorbar={"x": place, "y": 0.87, "len": 0.3, "thickness": 10, "tickfont": {"color": INK}},
        hovertemplate="token %{y}, channel %{x}: %{z:.3g}<extra></extra>",
    )


def _channel_bars() -> Any:
    return go.Bar(
        x=NOWHERE, y=NOWHERE, name="error by channel", showlegend=False,
        marker={"color": "#E69F00", "pattern": {"shape": "/", "size": 4}},
        hovertemplate="channel %{x}: %{y:.3g}<extra></extra>",
    )  # fmt: skip


def _answer_points(tensor: str) -> Any:
    colour, marker = MARKS[tensor]
    return go.Scatter(
        x=NOWHERE, y=NOWHERE, mode="markers+text", name=f"{tensor} packed, the rest float",
        marker={"color": colour, "symbol": marker, "size": 10},
        textposition="top center", textfont={"size": 11, "color": INK}, cliponaxis=False,
        hovertemplate="%{customdata}<br>error %{x:.2f} %, acceptance %{y:.3f}<extra></extra>",
    )  # fmt: skip
