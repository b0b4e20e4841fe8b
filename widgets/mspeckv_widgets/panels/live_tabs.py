"""The live panel's tabs that are made when they are first opened: they are heavy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from mspeckv_widgets.panels.what_if import Live, WhatIf


class ElsewhereTab:
    """The panel's setting on other machines and models; `box` is what is shown.

    Args:
        live: the live panel, whose setting is followed while the tab is in front.
    """

    def __init__(self, live: Callable[[], Live]) -> None:
        self._live = live
        self.what_if: WhatIf | None = None
        self.box = widgets.VBox([])

    def open(self, in_front: Callable[[], bool]) -> None:
        """Make it, once, and take the panel's setting."""
        live = self._live()
        if self.what_if is None:
            axis = live.controls.preset or "A1"
            self.what_if = WhatIf(live, axis, awake=in_front)
            self.box.children = (self.what_if.panel,)
        else:
            self.what_if.follow()


def on_opened(tabs: Any, box: Any, act: Callable[[], None]) -> None:
    """Call ``act`` whenever the tab that shows ``box`` comes to the front."""

    def look(change: Any) -> None:
        if change["new"] is not None and tabs.children[change["new"]] is box:
            act()

    tabs.observe(look, names="selected_index")
