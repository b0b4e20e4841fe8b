"""A plotly figure whose views are all up to date, also those opened later, and its look."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import plotly.graph_objects as go

from mspeckv_widgets.charts.theme import CLEAR, FAINT, GRID, INK

LOST = ("name", "showlegend")
"""What a page forgets of a trace when these are changed in others, and gives back as defaults."""


class Figure(go.FigureWidget):
    """A `plotly.graph_objects.FigureWidget` for use inside panels.

    plotly tells the views that there are of each change, but renews what a further view begins with
    only where the figure is a cell's own result. Within a panel, a page loaded anew would show the
    figure as it was made. Here that is renewed whenever the page asks for it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # else it does not hear of a window's new size, nor, from a panel, of its tab being shown
        self._config = {"responsive": True}

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        """What a page is told of this figure; ``key`` as in ipywidgets."""
        asked = {key} if isinstance(key, str) else None if key is None else {*key}
        held = vars(self)
        # as values, not as changes: nothing is to be sent from here
        if held.get("_layout") is not None and (asked is None or "_widget_layout" in asked):
            self._trait_values["_widget_layout"] = deepcopy(held["_layout"])
        if held.get("_data") is not None and (asked is None or "_widget_data" in asked):
            self._trait_values["_widget_data"] = [
                {**{name: known[name] for name in LOST if name in known}, **deepcopy(given)}
                for given, known in zip(held["_data"], held["_data_defaults"], strict=True)
            ]
        return super().get_state(key, drop_defaults)

    def renew(self) -> None:
        """Tell the page what a further view of this figure begins with."""
        self.send_state(["_widget_layout", "_widget_data"])


def lay_out(figure: Any, title: str, height: int) -> Any:
    """Give a plotly figure the project's look: clear background, legend below, quiet grid.

    Returns the figure. A legend below leaves the plot its width on any screen.
    """
    figure.update_layout(
        title={"text": title, "font": {"size": 13}, "x": 0, "xref": "paper"},
        height=height,
        autosize=True,
        margin={"l": 70, "r": 12, "t": 36, "b": 45},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"color": INK, "size": 12},
        legend={
            "orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom",
            "font": {"size": 11}, "bgcolor": CLEAR,
        },
    )  # fmt: skip
    lines = {"gridcolor": GRID, "linecolor": FAINT, "zerolinecolor": FAINT, "automargin": True}
    figure.update_xaxes(**lines)
    figure.update_yaxes(**lines)
    return figure
