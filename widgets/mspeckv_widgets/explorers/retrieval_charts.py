"""What `RetrievalExplorer` draws: the strip of chunks, one head's masses, tables, and the text."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mspeckv import RetrievalReport
from mspeckv_widgets.charts.figure import Figure, lay_out
from mspeckv_widgets.charts.story import split_text, tier_style
from mspeckv_widgets.charts.table import table_html
from mspeckv_widgets.charts.theme import INK

STRIP, MARK, KEPT, LEFT, HERE = range(5)
"""Traces: the heat strip, the head that is shown, its kept and its other chunks, the chunk read."""


def build_figure() -> Any:
    """The heat strip over one head's bars, both empty, over the document's chunks."""
    figure = Figure(
        make_subplots(
            rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.1, row_heights=[0.55, 0.45],
            subplot_titles=("KV heads that keep a chunk, by layer", "Attention mass by chunk"),
        )
    )  # fmt: skip
    figure.add_trace(
        go.Heatmap(
            z=np.empty((0, 0)), colorscale="Cividis", zmin=0,
            colorbar={
                "title": {"text": "heads"}, "y": 0.76, "len": 0.5, "thickness": 10,
                "tickfont": {"color": INK},
            },
            hovertemplate="chunk %{x}, layer %{y}: kept by %{z} heads<extra></extra>",
        ),
        row=1, col=1,
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            mode="markers", name="the layer shown below", hoverinfo="skip", cliponaxis=False,
            marker={"symbol": "triangle-right", "size": 12, "color": "#D55E00"},
        ),
        row=1, col=1,
    )  # fmt: skip
    for name, colour, pattern in (("kept", "#0072B2", ""), ("left out", "#E69F00", "/")):
        figure.add_trace(
            go.Bar(
                name=name, marker={"color": colour, "pattern": {"shape": pattern, "size": 4}},
                hovertemplate=f"chunk %{{x}}, {name}: %{{y:.3g}} %<extra></extra>",
            ),
            row=2, col=1,
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            mode="markers", name="the chunk read below",
            marker={"symbol": "triangle-down", "size": 11, "color": "#D55E00"},
            hovertemplate="chunk %{x}<extra></extra>",
        ),
        row=2, col=1,
    )  # fmt: skip
    lay_out(figure, "", 540)
    figure.update_layout(barmode="overlay", bargap=0, margin={"t": 30, "b": 75})
    figure.update_annotations(font={"size": 13, "color": INK}, x=0, xanchor="left")
    figure.update_yaxes(title_text="layer", autorange="reversed", row=1, col=1)
    figure.update_yaxes(title_text="% of attention<br>(measured)", row=2, col=1)
    figure.update_xaxes(title_text="chunk of the document", row=2, col=1)
    return figure


def draw_figure(figure: Any, report: RetrievalReport, layer: int, head: int, chunk: int) -> None:
    """Show a report: every layer in the strip, one head's masses as bars."""
    kept = report.kept
    chunks = np.arange(report.plan.chunks)
    mass = 100 * report.mass[layer, head]
    ours = kept[layer, head]
    with figure.batch_update():
        strip = figure.data[STRIP]
        strip.z, strip.zmax = kept.sum(1), kept.shape[1]
        figure.data[MARK].x, figure.data[MARK].y = np.array([-0.5]), np.array([layer])
        for place, which in ((KEPT, ours), (LEFT, ~ours)):
            figure.data[place].x, figure.data[place].y = chunks[which], mass[which]
        # chunk 0 has so much in most heads that all others would be flat beside it
        top = 1.2 * float(mass[1:].max(initial=0.0)) or float(mass.max())
        figure.data[HERE].x, figure.data[HERE].y = np.array([chunk]), np.array([0.95 * top])
        figure.layout.yaxis2.range = [0, top]
        beyond = f"; chunk 0, {mass[0]:.0f} %, goes beyond" if mass[0] > top else ""
        where = f"layer {layer}, head {head}{beyond}"
        figure.layout.annotations[1].text = f"Attention mass by chunk: {where}"


def captured_html(report: RetrievalReport, layer: int, head: int) -> str:
    """Where one head's attention goes, and every head's on average."""
    kept, plan = report.kept, report.plan
    parts = {
        "chunk 0, always kept": report.mass[..., 0],
        f"{plan.chosen - 1} chunks the policy chose": (report.mass * kept)[..., 1:].sum(-1),
        f"last {plan.rest} tokens and the newest, always kept": report.rest,
        "captured by this choice": report.captured,
        "the most that so many chunks could capture": report.best,
        "left out": 1 - report.captured,
    }
    rows = [
        (name, f"{100 * share[layer, head]:.1f} %", f"{100 * share.mean():.1f} %")
        for name, share in parts.items()
    ]
    heads = ("attention mass of the next token", "this head", "all heads, mean")
    caption = (
        f"{plan.chosen} of {plan.chunks} chunks kept: {plan.kept} of {plan.prompt} prompt tokens "
        "(masses measured; 100 % is the full attention)"
    )
    return table_html(caption, heads, rows, text=1)


def ranking_html(report: RetrievalReport, layer: int, head: int, texts: Sequence[str]) -> str:
    """The chunks with the highest scores: why they were chosen."""
    scores, mass = report.scores[layer, head], report.mass[layer, head]
    order = np.argsort(-scores, kind="stable")[: min(8, len(scores))]
    by_mass = np.argsort(np.argsort(-mass, kind="stable"), kind="stable")
    rows = [
        (
            _short(texts[chunk]), f"{chunk}", f"{scores[chunk]:.3g}",
            f"{100 * mass[chunk]:.2f} %", f"{by_mass[chunk] + 1}",
        )
        for chunk in order
    ]  # fmt: skip
    heads = ("text", "chunk", "score", "attention mass", "rank by mass")
    policy = report.speculation.retrieval
    caption = f"Highest scores of policy {policy!r} in this head (scores and masses measured)"
    return table_html(caption, heads, rows, text=1)


def document_html(texts: Sequence[str], kept: Sequence[bool], chunk: int) -> str:
    """The document, a span per chunk: kept ones underlined, the one that is read framed."""
    spans = []
    for index, text in enumerate(texts):
        style = tier_style(1) if kept[index] else ""
        here = ' aria-current="true"' if index == chunk else ""
        frame = ";outline:2px solid var(--mskv-focus)" if index == chunk else ""
        word = "kept" if kept[index] else "left out"
        spans.append(
            f'<span class="mskv-chunk" data-kept="{str(bool(kept[index])).lower()}"{here} '
            f'title="chunk {index}: {word}" style="{style}{frame}">{html.escape(text)}</span>'
        )
    return (
        '<div class="mskv-story" role="region" tabindex="0" aria-label="Document by chunks">'
        f"{''.join(spans)}</div>"
    )


def chunk_texts(tokenizer: Any, tokens: Sequence[int], size: int, count: int) -> list[str]:
    """The text of each of ``count`` chunks of ``size`` tokens; ids where there is no tokenizer."""
    texts = [""] * count
    for index, text in split_text(tokenizer, tokens[: size * count]):
        texts[index // size] += text
    return texts


def _short(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
