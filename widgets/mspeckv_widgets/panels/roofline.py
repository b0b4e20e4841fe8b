"""`Roofline`: what a pass could reach at most here, and on which side of the ridge it lies."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from mspeckv import Profile
from mspeckv.settings import check_kind
from mspeckv_study.profiling import Ceilings, StepRow
from mspeckv_widgets.charts.figure import LOG_AXIS
from mspeckv_widgets.charts.theme import INK, TIERS
from mspeckv_widgets.panels.profile_view import View, figure_of, rows_html


class Roofline(View):
    """Each tier's passes under this machine's measured ceilings.

    A point's place on the axis is operations per byte of weights and KV that its passes read. Left
    of the ridge, where the two ceilings meet, memory is the limit; right of it arithmetic.

    Args:
        profile: from `mspeckv.profile`.
        ceilings: from `mspeckv.calibrate`.

    Attributes:
        ridge: operations per byte at which the ceilings meet.
        intensity: by step, operations per byte (counted).
    """

    def __init__(self, profile: Profile, ceilings: Ceilings) -> None:
        check_kind("profile", profile, Profile)
        check_kind("ceilings", ceilings, Ceilings, "what mspeckv.calibrate gives")
        self.ridge = ceilings.matrix_gflops / ceilings.memory_gbps
        rows = [row for row in profile.rows if row.step.startswith("tier") and row.bytes]
        self.intensity: Mapping[str, float] = {
            row.step: row.gflop * 1e9 / row.bytes for row in rows
        }
        figure = figure_of("Roofline", 360)
        figure.add_trace(self._ceiling(ceilings))
        for row in rows:
            figure.add_trace(self._point(row))
        asked = "operations per byte of weights and KV (counted)"
        figure.update_xaxes(title_text=asked, **LOG_AXIS)
        figure.update_yaxes(title_text="GFLOP/s (measured)", **LOG_AXIS)
        note = f'<div class="mskv-small">{ceilings.describe()}<br>{"<br>".join(self.sides)}</div>'
        super().__init__(figure, note + rows_html(rows))

    @property
    def sides(self) -> list[str]:
        """Of each step, on which side of the ridge its passes lie."""
        return [
            f"{step}: {found:.1f} operations per byte, "
            + (
                f"left of the ridge at {self.ridge:.1f}: memory is the limit"
                if found < self.ridge
                else f"right of the ridge at {self.ridge:.1f}: arithmetic is the limit"
            )
            for step, found in self.intensity.items()
        ]

    def _ceiling(self, ceilings: Ceilings) -> go.Scatter:
        """Memory's slope up to the ridge, then the flat one of arithmetic."""
        low = min(self.ridge, *self.intensity.values()) / 4
        high = max(self.ridge, *self.intensity.values()) * 4
        return go.Scatter(
            x=[low, self.ridge, high],
            y=[ceilings.memory_gbps * low, *[ceilings.matrix_gflops] * 2],
            mode="lines+markers",
            name="ceiling: memory, then matrix products (measured)",
            line={"color": INK, "dash": "dash"},
            marker={"size": [0, 8, 0], "color": INK},
            hovertemplate="%{x:.1f} operations per byte: at most %{y:.0f} GFLOP/s<extra></extra>",
        )

    def _point(self, row: StepRow) -> go.Scatter:
        """One kind of pass."""
        assert row.tier is not None
        style = TIERS[row.tier]
        return go.Scatter(
            x=[self.intensity[row.step]],
            y=[row.gflop / row.total_ms * 1e3],
            mode="markers",
            name=row.step,
            marker={"symbol": style.marker, "color": style.colour, "size": 12},
            hovertemplate=f"{row.step}<br>%{{x:.2f}} operations per byte<br>%{{y:.1f}} GFLOP/s"
            "<extra></extra>",
        )
