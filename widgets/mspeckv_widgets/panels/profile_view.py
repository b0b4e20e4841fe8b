"""Two views of a profile: a round's timeline, and shares by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as ipw
import plotly.graph_objects as go

from mspeckv import Profile
from mspeckv.settings import check_kind
from mspeckv_study.profiling import Bar, StepRow
from mspeckv_widgets.charts.figure import Figure, lay_out
from mspeckv_widgets.charts.table import readable_bytes, table_html
from mspeckv_widgets.charts.theme import TIERS
from mspeckv_widgets.panel import HasPanel, panel

STEPS: dict[str, tuple[str, str]] = {
    "tier0/draft": (TIERS[0].colour, ""),
    "tier1/draft": (TIERS[1].colour, ""),
    "tier1/verify": (TIERS[1].colour, ""),
    "tier2/verify": (TIERS[2].colour, ""),
    "tier2/decode": (TIERS[2].colour, ""),
    "kv/fetch": ("#E69F00", "/"),
    "kv/packed": ("#56B4E9", "+"),
    "kv/dequantize": ("#56B4E9", "x"),
    "kv/copy": ("#56B4E9", "."),
    "kv/flush": ("#CC79A7", "."),
    "retrieval/score": ("#F0E442", "\\"),
    "retrieval/gather": ("#F0E442", "+"),
    "sample": ("#808080", "-"),
    "settle": ("#44AA99", "|"),
    "plan": ("#AA4499", "/"),
    "record": ("#999933", "|"),
    "wait": ("#DDCC77", "."),
    "profiler": ("#BBBBBB", "x"),
    "not attributed": ("#BBBBBB", ""),
}
"""Colour and pattern of each step."""
LINK_COLOUR = "#332288"
"""Of what crosses the link: no tier's."""


class View(HasPanel):
    """A figure over a table, shown together."""

    def __init__(self, figure: Any, table: str) -> None:
        self.figure = figure
        self.table = ipw.HTML(table)
        self.panel = panel(figure.layout.title.text, [figure, self.table])


class Timeline(View):
    """One round: spans on the compute lane, transfers on the link lane, so that overlap is seen.

    A slider goes through the profiled rounds.

    Args:
        profile: from `mspeckv.profile`.
        index: which of its rounds.

    Raises:
        ValueError: no such round.
    """

    def __init__(self, profile: Profile, index: int = 0) -> None:
        check_kind("profile", profile, Profile)
        self.profile = profile
        bars = profile.timeline(index)
        figure = figure_of("Compute and link in one round", 260)
        figure.update_xaxes(title_text="ms since the round began (measured)")
        figure.update_layout(barmode="overlay")
        super().__init__(figure, "")
        self.round = ipw.IntSlider(
            value=index, min=0, max=len(profile.rounds) - 1, description="Round",
            continuous_update=False, layout={"width": "348px", "max_width": "100%"},
        )  # fmt: skip
        self.round.observe(lambda change: self.show(change["new"]), names="value")
        self.panel.children = (self.round, *self.panel.children)
        self._draw(index, bars)

    def take(self, profile: Profile, index: int = 0) -> None:
        """Show another profile in the same figure: a new one would cost the browser megabytes.

        Raises:
            ValueError: no such round.
        """
        profile.timeline(index)
        self.profile = profile
        self.round.max = len(profile.rounds) - 1
        self.round.value = index
        self.show(index)

    def show(self, index: int) -> None:
        """Draw round ``index``.

        Raises:
            ValueError: no such round.
        """
        self._draw(index, self.profile.timeline(index))

    def _draw(self, index: int, bars: Sequence[Bar]) -> None:
        deepest = max((bar.depth for bar in bars if bar.lane == "compute"), default=0)
        lanes = ["link", *(_lane_name(depth) for depth in range(deepest, -1, -1))]
        names = dict.fromkeys(_step(bar) for bar in bars)
        with self.figure.batch_update():
            self.figure.data = ()
            self.figure.add_traces(
                [_lane([bar for bar in bars if _step(bar) == name], name) for name in names]
            )
            self.figure.update_yaxes(categoryorder="array", categoryarray=lanes)
            self.figure.update_layout(
                title_text=f"Round {index}: compute and link", height=260 + 24 * deepest
            )
        self.table.value = overlap_html(bars)


class TierBreakdown(View):
    """Share of the wall time by step, one bar per tier."""

    def __init__(self, profile: Profile) -> None:
        check_kind("profile", profile, Profile)
        figure = figure_of("Time by tier and step (ranges inside taken out)", 300)
        for step in dict.fromkeys(row.step for row in profile.rows):
            rows = [row for row in profile.rows if row.step == step]
            colour, pattern = STEPS.get(step, ("#999999", ""))
            figure.add_trace(
                go.Bar(
                    x=[row.self_ms for row in rows],
                    y=[_tier_name(row.tier) for row in rows],
                    orientation="h",
                    name=step,
                    marker={"color": colour, "pattern": {"shape": pattern, "size": 5}},
                    hovertemplate=f"{step}<br>%{{x:.1f}} ms<extra></extra>",
                )
            )
        figure.update_layout(barmode="stack")
        figure.update_xaxes(title_text="ms (measured)")
        super().__init__(figure, rows_html(profile.rows))


def overlap_ms(bars: Sequence[Bar]) -> tuple[float, float]:
    """How long the link was busy, and how much of it compute did not stand waiting.

    Transfers queue behind one another, so a wait (``kv/fetch``) is never longer than they are.
    """
    busy = sum(bar.ms for bar in bars if bar.lane == "link" and bar.bytes)
    waited = sum(bar.ms for bar in bars if bar.name == "kv/fetch")
    return busy, max(0.0, busy - waited)


def longest_rest(bars: Sequence[Bar]) -> float:
    """The longest time, between its first transfer and its last one's end, that the link rests."""
    moved = sorted(
        (bar.start_ms, bar.start_ms + bar.ms) for bar in bars if bar.lane == "link" and bar.bytes
    )
    rests, busy_until = [0.0], moved[0][0] if moved else 0.0
    for start, end in moved:
        rests.append(start - busy_until)
        busy_until = max(busy_until, end)
    return max(rests)


def overlap_html(bars: Sequence[Bar]) -> str:
    """The same in words."""
    busy, hidden = overlap_ms(bars)
    if not busy:
        return '<div class="mskv-small">Nothing crossed the link in this round.</div>'
    return (
        f'<div class="mskv-small">The link was busy for {busy:.1f} ms; {hidden:.1f} ms of that '
        f"({hidden / busy:.0%}) passed while compute went on (measured).</div>"
    )


def rows_html(rows: Sequence[StepRow]) -> str:
    """A profile's rows as a table."""
    on_gpu = any(row.device_ms for row in rows)
    device = ("device ms",) if on_gpu else ()
    heads = ("tier", "step", "calls", "total ms", "self ms", "share", *device, "GFLOP", "bytes")
    cells = [
        (
            "" if row.tier is None else str(row.tier), row.step, str(row.calls),
            f"{row.total_ms:.1f}", f"{row.self_ms:.1f}", f"{row.share:.1%}",
            *([f"{row.device_ms:.1f}"] if on_gpu else []), f"{row.gflop:.2f}",
            " ".join(readable_bytes(row.bytes)) if row.bytes else "", f"{row.gbps:.2f}",
        )
        for row in rows
    ]  # fmt: skip
    return table_html("Times are measured, bytes counted", (*heads, "GB/s"), cells, text=2)


def _step(bar: Bar) -> str:
    return bar.name if bar.lane == "compute" else bar.name.split(",")[0]


def _tier_name(tier: int | None) -> str:
    return "between passes" if tier is None else TIERS[tier].name


def _lane_name(depth: int) -> str:
    return "compute" if depth == 0 else f"inside {depth}"


def _lane(bars: Sequence[Bar], name: str) -> Any:
    """One step's bars, on all lanes."""
    colour, pattern = STEPS.get(name, (LINK_COLOUR, ""))
    return go.Bar(
        base=[bar.start_ms for bar in bars],
        x=[bar.ms for bar in bars],
        y=[_lane_name(bar.depth) if bar.lane == "compute" else "link" for bar in bars],
        orientation="h",
        name=name,
        marker={"color": colour, "pattern": {"shape": pattern, "size": 4}},
        customdata=[(bar.name, bar.bytes / 1e6, _gbps(bar)) for bar in bars],
        hovertemplate="%{customdata[0]}<br>%{x:.2f} ms<br>%{customdata[1]:.2f} MB"
        "<br>%{customdata[2]:.3f} GB/s<extra></extra>",
    )


def _gbps(bar: Bar) -> float:
    return bar.bytes / bar.ms / 1e6 if bar.ms else 0.0


def figure_of(title: str, height: int) -> Any:
    """An empty figure in the panels' own style."""
    return lay_out(Figure(), title, height)
