"""`MemoryMap`: how many bytes each layer's KV takes, and where they lie."""

from __future__ import annotations

import plotly.graph_objects as go

from mspeckv import RunSummary
from mspeckv.settings import check_kind
from mspeckv_widgets.charts.table import readable_bytes, table_html
from mspeckv_widgets.charts.theme import INK, PLACES
from mspeckv_widgets.panels.profile_view import View, figure_of

_PATTERNS = {"on-chip": "", "resident": "/", "offloaded": "|"}


class MemoryMap(View):
    """Bytes of each layer's KV, coloured by placement; below, the sums on each side.

    All layers have one shape, so each has its share of what lies in its place.

    Args:
        summary: of any run.
    """

    def __init__(self, summary: RunSummary) -> None:
        check_kind("summary", summary, RunSummary)
        placement, memory = summary.config["placement"], summary.memory
        sizes = {
            "on-chip": memory.on_chip_bytes,
            "resident": memory.resident_bytes,
            "offloaded": memory.offloaded_bytes,
        }
        figure = figure_of("Tier 2's layers", 240)
        for place, style in PLACES.items():
            layers = [layer for layer, found in enumerate(placement) if found == place]
            if not layers:
                continue
            figure.add_trace(
                go.Bar(
                    x=layers,
                    y=[sizes[place] / len(layers) / 1e6] * len(layers),
                    name=place,
                    marker={
                        "color": style.colour,
                        "line": {"color": INK, "width": 1},
                        "pattern": {"shape": _PATTERNS[place], "size": 6},
                    },
                    hovertemplate=f"layer %{{x}}: {place}, %{{y:.3f}} MB<extra></extra>",
                )
            )
        # plotly leaves a single trace's name away
        figure.update_layout(showlegend=True)
        figure.update_yaxes(title_text="MB of KV (modelled)", rangemode="tozero")
        figure.update_xaxes(title_text="layer")
        sides = [
            ("device", "on-chip: floats", memory.on_chip_bytes),
            ("device", "resident: codes", memory.resident_bytes),
            ("host", "offloaded", memory.offloaded_bytes),
            (
                "device",
                "all at the peak, weights and their copies included",
                memory.peak_device_bytes,
            ),
        ]
        cells = [(side, what, " ".join(readable_bytes(size))) for side, what, size in sides]
        table = table_html("Bytes by place (modelled)", ("side", "what", "bytes"), cells, text=2)
        super().__init__(figure, table)
