"""What the live panel is made of, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from mspeckv import Pair
from mspeckv_widgets.charts.story import keys_html, story_html
from mspeckv_widgets.compared import ENOUGH
from mspeckv_widgets.panel import Panel, button, panel
from mspeckv_widgets.panels.controls import Controls
from mspeckv_widgets.panels.copybox import CopyBox
from mspeckv_widgets.panels.curves import Curves
from mspeckv_widgets.panels.live_charts import Charts
from mspeckv_widgets.panels.live_labels import HEIGHT
from mspeckv_widgets.panels.live_style import LIVE_STYLE
from mspeckv_widgets.panels.live_tabs import ElsewhereTab, on_opened
from mspeckv_widgets.panels.moving_tab import MovingTab
from mspeckv_widgets.panels.profile_tab import ProfileTab
from mspeckv_widgets.panels.what_if import Live
from mspeckv_widgets.record import RunRecord

_VIEWS = (("Tokens", "tokens"), ("Seconds", "seconds"), ("Curve", "curve"))
_BUTTONS = {
    "run": ("Run", "play", "Start a run with this setting", "success"),
    "repeat": (
        f"Run x{ENOUGH}", "",
        f"Run every compared setting {ENOUGH} times, in turns: then times can be compared", "",
    ),
    "stop": ("Stop", "stop", "End the run, keep what it has made", "warning"),
    "profile": (
        "Profile", "", "Profile this run: once without, once with PyTorch's profiler", ""
    ),
    "reset": ("Reset", "", "End the run, clear everything, put every control back", ""),
}  # fmt: skip
"""By action: words, icon, tip and style."""


class LiveView:
    """The live panel's parts.

    Args:
        controls: the setting's.
        curves: a preset's whole axis.
        actions: what a button's press does, by the names of `_BUTTONS`.
        on_seen: called when a page shows the panel.
        live: the live panel itself.

    Attributes:
        charts: of what has run.
        status, tiles, bars, said, story: what stands beside them, as HTML.
        comparison, card, rounds, moving, profile, elsewhere, code: what stands in tabs below.
        view_as: what runs along x, or the preset's curve.
        panel: all of it.
    """

    def __init__(
        self,
        controls: Controls,
        curves: Curves,
        actions: Mapping[str, Callable[[], None]],
        on_seen: Callable[[], None],
        live: Callable[[], Live],
    ) -> None:
        self.controls, self.curves, self._on_seen = controls, curves, on_seen
        self.moving, self.elsewhere = MovingTab(), ElsewhereTab(live)
        self.charts, self.profile, self.code = Charts(), ProfileTab(), CopyBox()
        self.status, self.tiles, self.bars = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.said, self.story = widgets.HTML(), widgets.HTML()
        self.comparison, self.card, self.rounds = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.buttons = {name: _button(*words) for name, words in _BUTTONS.items()}
        self.buttons["repeat"].remove_class("mskv-run").add_class("mskv-repeat")
        for name, act in actions.items():
            self.buttons[name].on_click(lambda _, do=act: do())
        self.view_as = widgets.ToggleButtons(
            options=_VIEWS, value="tokens", style={"button_width": "78px"},
            tooltips=("Tokens settled along x: the slope is the answer", "Seconds along x",
                      "A preset's whole axis: modelled, published, and what has run here"),
        )  # fmt: skip
        self._charts_box = widgets.VBox([self.charts.figure])
        self.panel = self._assemble()
        self.choose()

    @property
    def curve(self) -> bool:
        """Whether the preset's curve is shown."""
        return bool(self.view_as.value == "curve")

    def choose(self) -> None:
        """Show the runs' charts, or the preset's curve."""
        self._charts_box.layout.display = "none" if self.curve else ""
        self.curves.box.layout.display = "" if self.curve else "none"

    def busy(self, on: bool) -> None:
        """Which buttons can be pressed."""
        for name in ("run", "repeat", "profile"):
            self.buttons[name].disabled = on
        self.buttons["stop"].disabled = not on

    @property
    def moves(self) -> bool:
        """Whether the moving picture is in front."""
        return self._in_front(self.moving.box)

    def _in_front(self, box: Any) -> bool:
        return bool(self._tabs.children[self._tabs.selected_index or 0] is box)

    def reset(self) -> None:
        """Put the tabs back; what they show of runs is told by who drew it."""
        self._tabs.selected_index = 0
        self.moving.clear()
        if self.elsewhere.what_if is not None:
            self.elsewhere.what_if.reset()

    def show_elsewhere(self) -> None:
        """Bring other machines and models to the front."""
        self._tabs.selected_index = self._tabs.children.index(self.elsewhere.box)

    def when_moving(self, act: Callable[[], None]) -> None:
        """Call ``act`` whenever the moving picture comes to the front."""
        on_opened(self._tabs, self.moving.box, act)

    def tell(self, record: RunRecord | None, pair: Pair | None) -> None:
        """Show a run's text, each token in the colour of the tier that settled it."""
        pieces = record.pieces if record is not None else None
        if pieces is None and pair is not None:
            pieces = pair.tokenizer
        self.story.value = story_html(
            pieces, record.tokens if record else [], record.settled_by if record else []
        )

    def show_profile_tab(self) -> None:
        """Bring it to the front."""
        self._tabs.selected_index = self._tabs.children.index(self.profile.box)

    def _assemble(self) -> Panel:
        bar = widgets.HBox(
            [*self.buttons.values(), *self.controls.presets.values(), self.view_as],
            layout={"align_items": "center", "flex_flow": "row wrap"},
        )
        story = widgets.VBox([widgets.HTML(keys_html()), self.story])
        story.add_class("mskv-live-story")
        left = widgets.VBox(
            [self.controls.panel, story], layout={"flex": "0 1 284px", "min_width": "270px"}
        )
        right = widgets.VBox(
            [self.tiles, self._charts_box, self.curves.box, self.bars, self.said],
            layout={"flex": "1 1 450px", "min_width": "300px", "overflow": "hidden"},
        )
        self.said.add_class("mskv-said")
        self._tabs = widgets.Tab(
            children=[
                self.comparison, self.card, self.rounds, self.moving.box, self.profile.box,
                self.elsewhere.box, self.code,
            ],
            titles=("Last runs", "Score card", "Round by round", "A round, moving", "Profile",
                    "Elsewhere", "Copy as code"),
        )  # fmt: skip
        there = self.elsewhere
        on_opened(self._tabs, there.box, lambda: there.open(lambda: self._in_front(there.box)))
        top = widgets.HBox([left, right], layout={"flex_flow": "row wrap"})
        style = widgets.HTML(LIVE_STYLE)
        parts = [style, bar, self.status, top, self._tabs]
        return panel("Live lab", parts, on_size=self._size)

    def _size(self, _: int, height: int, big: bool) -> None:
        """Let the figures grow with a projector's screen."""
        height = max(HEIGHT, height // 2) if big else HEIGHT
        self.charts.resize(height, big)
        self.curves.chart.figure.update_layout(height=height)
        self._on_seen()


def _button(words: str, icon: str, tip: str, style: str) -> Any:
    made = button(words, icon, tip, {"width": "74px", "flex": "0 0 auto"})
    made.button_style = style
    return made
