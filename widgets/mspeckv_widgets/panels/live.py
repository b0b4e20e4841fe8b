"""`LiveLab`: the panel that decodes real text through the tiers and shows what moves."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
from IPython.core import display

from mspeckv import Pair, Profile
from mspeckv_widgets.charts.story import legend_html, story_html
from mspeckv_widgets.charts.theme import STYLE_SHEET
from mspeckv_widgets.panel import button, panel
from mspeckv_widgets.panels.controls import Controls
from mspeckv_widgets.panels.copybox import CopyBox
from mspeckv_widgets.panels.live_charts import Charts
from mspeckv_widgets.panels.profile_tab import ProfileTab
from mspeckv_widgets.panels.runner import Runner, State, View
from mspeckv_widgets.panels.scorecard import card_html, comparison_html, rounds_html
from mspeckv_widgets.panels.snippet import code_text
from mspeckv_widgets.panels.worker_panel import WorkerPanel, status_line
from mspeckv_widgets.record import RunRecord

# Seconds between two drawings: at most 10 a second.
TICK = 0.1


class LiveLab(WorkerPanel[Runner]):
    """A panel with a run's settings, its charts, its text and its score card.

    Show it by making it a cell's last expression. Runs happen on a thread of their own, so other
    cells keep working; from code, `run`, `stop`, `reset` and `wait` do what the buttons do, and
    ``lab.controls.set(gamma=4)`` moves a control.

    Args:
        pair: a loaded pair; without one, the default pair is loaded at the first run.
        document: the prompt's source, as in `mspeckv.documents.load_document`.
    """

    def __init__(self, pair: Pair | None = None, document: str = "python-reference") -> None:
        super().__init__(Runner(pair, self._bound_by), TICK)
        self.charts = Charts()
        self._code = CopyBox()
        self.profile_tab = ProfileTab()
        self._profile_shown: Profile | None = None
        self.controls = Controls(document, self._show_code)
        self._status = widgets.HTML(layout={"flex": "1 1 auto"})
        self._story, self._card = widgets.HTML(), widgets.HTML()
        self._comparison, self._rounds = widgets.HTML(), widgets.HTML()
        self._run = _button("Run", "play", "Start a run with this setting", "success")
        self._profile = _button(
            "Profile", "clock-o", "Profile this run: once without, once with PyTorch's profiler"
        )
        self._stop = _button("Stop", "stop", "End the run, keep what it has made", "warning")
        self._reset = _button(
            "Reset", "undo", "End the run, clear everything, put every control back"
        )
        self._run.on_click(lambda _: self.run())
        self._profile.on_click(lambda _: self.run(profiled=True))
        self._stop.on_click(lambda _: self.stop())
        self._reset.on_click(lambda _: self.reset())
        if pair is not None:
            self._bound_by(pair)
        self.panel = self._assemble()
        self._show_code()
        self._draw()

    @property
    def state(self) -> State:
        """Where the last run stands: see `mspeckv_widgets.panels.runner.State`."""
        return self.runner.view().state

    @property
    def error(self) -> str:
        """What went wrong, in one line; empty where nothing did."""
        return self.runner.view().error

    @property
    def records(self) -> list[RunRecord]:
        """The last runs, newest first, the one at work included."""
        view = self.runner.view()
        return [*([view.current] if view.current else []), *view.past]

    def run(self, profiled: bool = False) -> None:
        """Start a run with the controls' setting; nothing happens while one is at work.

        ``profiled`` makes it twice, the second time under PyTorch's profiler: see tab *Profile*.
        """
        if self.runner.busy:
            return
        try:
            setting = self.controls.setting()
        except ValueError as error:
            self.runner.refuse(str(error))
            self._draw()
            return
        if self.runner.start(setting, profiled):
            self._draw()
            self._begin_painting()

    def reset(self) -> None:
        """Stop, clear charts, text and last runs, and put every control back."""
        self.runner.forget()
        self.controls.reset()
        self._draw()

    def compare(self) -> Any:
        """A table of the finished runs, to show under a cell."""
        return display.HTML(  # type: ignore[no-untyped-call]  # IPython leaves it untyped
            f"{STYLE_SHEET}{comparison_html([r for r in self.records if r.summary])}"
        )

    def _bound_by(self, pair: Pair) -> None:
        self.controls.set_model(pair.layers, pair.max_positions)

    def _assemble(self) -> Any:
        toolbar = widgets.HBox(
            [self._run, self._profile, self._stop, self._reset, self._status],
            layout={"align_items": "center", "flex_flow": "row wrap"},
        )
        top = widgets.HBox(
            [
                self.controls.panel,
                widgets.VBox(
                    [self.charts.figure],
                    layout={"flex": "1 1 400px", "min_width": "280px", "overflow": "hidden"},
                ),
            ],
            layout={"flex_flow": "row wrap"},
        )
        text = widgets.VBox(
            [
                widgets.HTML(f'<div class="mskv-title">Text as it is settled</div>{legend_html()}'),
                self._story,
            ],
            layout={"flex": "1 1 400px", "min_width": "280px", "padding": "0 12px 0 0"},
        )
        card = widgets.VBox(
            [widgets.HTML('<div class="mskv-title">Score card</div>'), self._card],
            layout={"flex": "1 1 380px", "min_width": "280px"},
        )
        self._tabs = widgets.Tab(
            children=[self._comparison, self._rounds, self.profile_tab.box, self._code],
            titles=("Last runs", "Round by round", "Profile", "Copy as code"),
        )
        below = widgets.HBox([text, card], layout={"flex_flow": "row wrap"})
        return panel("Live lab", [toolbar, top, below, self._tabs], self.charts.fit)

    def _show_code(self) -> None:
        try:
            self._code.text = code_text(self.controls.setting())
        except ValueError as error:
            self._code.text = f"# {error}"

    def _draw(self) -> bool:
        """Draw what has changed; returns whether the worker is busy.

        The view is taken under the lock, so that a late thread cannot draw an older one.
        """
        with self._drawing:
            view = self.runner.view()
            self._run.disabled = view.busy
            self._profile.disabled = view.busy
            self._stop.disabled = not view.busy
            self._status.value = status_html(view)
            if view.version == self._drawn:
                return view.busy
            self._drawn = view.version
            self.charts.draw(view.current, view.past)
            record, pair = view.current, self.runner.pair
            tokens = record.tokens if record else []
            settled = record.settled_by if record else []
            self._story.value = story_html(pair.tokenizer if pair else None, tokens, settled)
            self._card.value = card_html(record)
            self._rounds.value = rounds_html(record)
            finished = [one for one in (record, *view.past) if one and one.summary]
            self._comparison.value = comparison_html(finished)
            self._show_profile(record.profile if record else None)
            if not view.busy:
                self.charts.figure.renew()
            return view.busy

    def _show_profile(self, found: Profile | None) -> None:
        """Bring a new profile to the front, once; forget one whose run is no longer the newest."""
        if found is self._profile_shown:
            return
        self._profile_shown = found
        if found is not None:
            # first: a figure drawn in a hidden tab finds no width to fill
            self._tabs.selected_index = self._tabs.children.index(self.profile_tab.box)
        self.profile_tab.show(found)


def status_html(view: View) -> str:
    """The status line, with a progress bar where the end is known."""
    current = view.current
    done, total = 0, 0
    if view.state == "failed":
        words = html.escape(f"Not run: {view.error}")
    elif view.state == "loading":
        words = "Loading the model pair (a few seconds; the first time it is converted)"
    elif view.state == "rehearsal":
        words = "Profiling: first without the profiler, to know what it costs"
    elif view.state == "prefill":
        words = "Prefill: reading the prompt"
        if view.progress is not None:
            _, done, total = view.progress
            words = f"Prefill: reading the prompt, layer {done} of {total}"
    elif current is not None and view.state in ("decoding", "done", "stopped"):
        done, total = len(current.tokens), current.setting.config.new_tokens
        verb = {"decoding": "Decoding", "done": "Done", "stopped": "Stopped"}[view.state]
        words = f"{verb}: {done} of {total} tokens in {len(current.rounds)} rounds"
    else:
        words = "Ending the run" if view.busy else "Ready: press Run"
    return status_line(view.state, words, done, total if view.busy else 0)


def _button(words: str, icon: str, tip: str, style: str = "") -> Any:
    made = button(words, icon, tip, {"width": "100px", "flex": "0 0 auto"})
    made.button_style = style
    return made
