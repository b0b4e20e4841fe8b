"""`LiveLab`: the panel that predicts a setting, runs it, and shows what moves."""

from __future__ import annotations

import html
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from IPython.core import display

from mspeckv import Pair, Profile
from mspeckv.settings import check_count, check_kind, check_name
from mspeckv_widgets.charts.theme import STYLE_SHEET
from mspeckv_widgets.compared import ENOUGH, changed
from mspeckv_widgets.conclusion import conclusion
from mspeckv_widgets.panels.controls import Controls
from mspeckv_widgets.panels.curves import Curves
from mspeckv_widgets.panels.live_charts import lines_of
from mspeckv_widgets.panels.live_style import status_html
from mspeckv_widgets.panels.live_view import LiveView
from mspeckv_widgets.panels.machine import Machine
from mspeckv_widgets.panels.prediction import Predicted
from mspeckv_widgets.panels.run_bars import bars_html, tiles_html
from mspeckv_widgets.panels.runner import Runner, State, View, prompts
from mspeckv_widgets.panels.scorecard import card_html, comparison_html, rounds_html
from mspeckv_widgets.panels.snippet import code_text
from mspeckv_widgets.panels.worker_panel import WorkerPanel, status_line
from mspeckv_widgets.record import RunRecord, Setting
from mspeckv_widgets.recording import Recording

# Seconds between two drawings: at most 10 a second.
TICK = 0.1
UNTIL_TEXT = 0.7
"""Seconds between drawings of the charts in a first round: a browser that draws delays its text."""


class LiveLab(WorkerPanel[Runner]):
    """A panel with a run's settings, what the model says of them, and what runs have shown.

    Show it by making it a cell's last expression. Runs happen on a thread of their own, so other
    cells keep working; from code, `run`, `stop`, `reset` and `wait` do what the buttons do, and
    ``lab.controls.set(gamma=4)`` moves a control.

    Args:
        pair: a loaded pair; without one, the default pair is loaded at the first run.
        document: the prompt's source, as in `mspeckv.documents.load_document`.
        recorded: a file of `mspeckv_widgets.recording`, replayed once the page is there.

    Attributes:
        predicted: what the cost model says of the controls' setting; None where it says nothing.
        redraw_ms: measured time of the last prediction and its drawing, without the browser's part.
    """

    def __init__(
        self,
        pair: Pair | None = None,
        document: str = "python-reference",
        recorded: str | Path | None = None,
    ) -> None:
        check_kind("pair", pair, Pair | None, "what mspeckv.load_pair gives, or nothing")
        check_name("document", document)
        check_kind("recorded", recorded, str | Path | None, "a file's path")
        super().__init__(Runner(pair, self._bound_by, self._measure_machine), TICK)
        self.machine = Machine(pair)
        self.predicted: Predicted | None = None
        self.redraw_ms = 0.0
        self._charts_drawn = 0.0
        self._setting: Setting | None = None
        self._why = ""
        self._profile_shown: Profile | None = None
        self.controls = Controls(document, self._changed)
        actions = {
            "run": self.run,
            "repeat": lambda: self.run(repeats=ENOUGH),
            "profile": lambda: self.run(profiled=True),
            "stop": self.stop,
            "reset": self.reset,
        }
        self._recording = None if recorded is None else Recording.load(Path(recorded))
        curves = Curves(self._run_place)
        self.view = LiveView(self.controls, curves, actions, self._seen, lambda: self)
        self.view.when_moving(self._show_moving)
        self.panel = self.view.panel
        self.view.view_as.observe(lambda _: self._switch(), names="value")
        for preset in self.controls.presets.values():
            preset.on_click(lambda _: setattr(self.view.view_as, "value", "curve"))
        if pair is not None:
            self._bound_by(pair)
        self._changed()

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
        return self.runner.view().records

    @property
    def conclusions(self) -> list[str]:
        """What the panel claims of the settings that are compared, as it stands under the bars."""
        view = self.runner.view()
        called = view.names
        return conclusion(view.compared, [called[one.setting] for one in view.compared])

    def run(self, profiled: bool = False, repeats: int = 1) -> None:
        """Start a run with the controls' setting; nothing happens while one is at work.

        Args:
            profiled: run twice, the second time under PyTorch's profiler: see tab *Profile*.
            repeats: run every compared setting so many times, in turns.
        """
        check_count("repeats", repeats, 1, 1000)
        if self.runner.busy:
            return
        try:
            setting = self.controls.setting()
        except ValueError as error:
            self.runner.refuse(str(error))
            self._draw()
            return
        # before the worker takes its share of the processor: that the press was heard
        self.view.status.value = status_line("prefill", "Starting the run", 0, 100)
        if self.runner.start(setting, profiled, repeats):
            self._begin_painting()
        else:
            self._draw(again=True)

    def replay(self, recording: Recording) -> None:
        """Show a recorded run again, as it was; nothing happens while a run is at work."""
        check_kind("recording", recording, Recording)
        if self.runner.replay(recording):
            self._begin_painting()

    def _seen(self) -> None:
        """A page gives the panel its room; where nothing has run, a recording is replayed."""
        self._draw(again=True)
        recording, self._recording = self._recording, None
        if recording is not None and not self.records:
            self.replay(recording)

    def reset(self) -> None:
        """Stop, clear charts, text and last runs, and put every control back."""
        self.runner.forget()
        self.view.view_as.value = "tokens"
        self.controls.reset()
        # after the controls: what is shown of other machines begins with them
        self.view.reset()
        self._draw()

    def elsewhere(self, experiment: str, **values: Any) -> None:
        """Bring the tab *Elsewhere* to the front: the panel's setting on other machines.

        Args:
            experiment: whose axis is shown.
            values: see `WhatIf.set`, such as ``machine="h200"``.

        Raises:
            ValueError: no such control, or a value that it does not have.
        """
        self.view.show_elsewhere()
        shown = self.view.elsewhere.what_if
        assert shown is not None, "the tab that is in front has been made"
        shown.set(experiment=experiment, **values)

    def compare(self) -> Any:
        """A table of the finished runs, to show under a cell."""
        return display.HTML(  # type: ignore[no-untyped-call]  # IPython leaves it untyped
            f"{STYLE_SHEET}{comparison_html([r for r in self.records if r.summary])}"
        )

    def _bound_by(self, pair: Pair) -> None:
        self.machine.bind(pair)
        self.controls.set_model(pair.layers, pair.max_positions, pair.kv_shape.depth)

    def _measure_machine(self, pair: Pair, setting: Setting) -> None:
        """Before the first run on a machine: what the model needs, kept for all later ones."""
        if not self.machine.measured:
            self.runner.measuring(on=True)
            # a pair of few positions cannot be measured: the assumed machine stays
            with suppress(ValueError):
                self.machine.measure(pair)
            self._predict()
            self.runner.measuring(on=False)

    def _run_place(self, values: dict[str, Any]) -> None:
        """A place of the curve was clicked."""
        if not self.runner.busy:
            self.controls.set(**values)
            self.run()

    def _changed(self) -> None:
        """A control has moved: predict, and draw that."""
        start = time.perf_counter()
        try:
            self._setting = self.controls.setting()
            code = code_text(self._setting, self.runner.pair)
        except ValueError as error:
            self._setting, code = None, f"# {error}"
        self._predict()
        self._draw(again=True)
        self.redraw_ms = (time.perf_counter() - start) * 1e3
        # last: one waits for numbers and lines
        self.view.code.text = code

    def _predict(self) -> None:
        """Ask the model; whoever draws meanwhile sees the old answer or the new one."""
        self._charts_drawn = 0.0  # what it says is drawn at once
        found, why = None, "the setting is not allowed"
        with self._drawing:
            if self._setting is not None:
                try:
                    found = self.machine.model.of(self._setting)
                except ValueError as error:
                    why = str(error)
            self.predicted, self._why = found, why

    def _draw(self, again: bool = False) -> bool:
        """Draw what has changed; returns whether the worker is busy.

        The view is taken under the lock, so that a late thread cannot draw an older one.
        """
        with self._drawing:
            view = self.runner.view()
            self.view.busy(view.busy)
            # the thread may end after its last word: that end is to be drawn as well
            if (view.version, view.busy) == self._drawn and not again:
                return view.busy
            self._drawn = view.version, view.busy
            if self.machine.learn(view.records):
                self._predict()
            self._draw_runs(view)
            if self.view.moves:
                self._show_moving()
            if not view.busy:
                self._draw_tabs(view)
                self.view.charts.figure.renew()
            return view.busy

    def _draw_runs(self, view: View) -> None:
        """Charts, headline numbers, bars and words."""
        compared, setting, shown = view.compared, self._setting, self.view
        called = view.names
        own = view.runs_of(setting)
        # first: that a press was heard, text and numbers are seen before charts are drawn
        self.view.status.value = status_html(view, self.machine, prompts.bytes)
        shown.tell(view.current, self.runner.pair)
        running = view.current if view.busy else None
        ran = next((one.setting for one in view.records if one.pieces is None), None)
        tried = [one for one in view.records if one.setting == setting and one.pieces is None]
        empty = "no timed run yet" if tried else "not run yet"
        empty = "running" if tried and running is tried[0] else empty
        self.view.tiles.value = tiles_html(own, self.predicted, self._why, empty)
        stale = own is None and not view.busy and ran is not None and setting not in (None, ran)
        new_tokens = int(self.controls.values["new_tokens"])
        if shown.curve:
            shown.curves.draw(self.controls, self.machine.model, view.records)
        else:
            axis = shown.view_as.value
            waiting = running is not None and running.prefill is not None and not running.rounds
            if not waiting or time.monotonic() > self._charts_drawn + UNTIL_TEXT:
                shown.charts.draw(lines_of(view), self.predicted, new_tokens, axis, stale)
                self._charts_drawn = time.monotonic()
        labels = [called[one.setting] for one in compared]
        self.view.bars.value = bars_html(compared, labels, self.predicted)
        slower = self.machine.slower(view.records)
        said = [*conclusion(compared, labels), *([slower] if slower else [])]
        if stale and ran is not None and setting is not None:
            said.insert(0, f"Changed since the last run: {changed(ran, setting)}. Press Run.")
        self.view.said.value = "".join(f"<p>{html.escape(line)}</p>" for line in said)

    def _draw_tabs(self, view: View) -> None:
        record = view.current
        self.view.card.value = card_html(record)
        self.view.rounds.value = rounds_html(record)
        self.view.comparison.value = comparison_html([one for one in view.records if one.summary])
        self._show_profile(record.profile if record else None)

    def _show_moving(self) -> None:
        """The run at work, as far as it is; else the newest that has ended."""
        with self._drawing:
            view = self.runner.view()
            ended = (one for one in view.records if one.summary is not None and one.rounds)
            shown = view.current if view.busy else next(ended, None)
            self.view.moving.show(shown, self.runner.pair)

    def _show_profile(self, found: Profile | None) -> None:
        """Bring a new profile to the front, once; forget one whose run is no longer the newest."""
        if found is self._profile_shown:
            return
        self._profile_shown = found
        if found is not None:
            # first: a figure drawn in a hidden tab finds no width to fill
            self.view.show_profile_tab()
        self.view.profile.show(found)

    def _switch(self) -> None:
        self.view.choose()
        self._draw(again=True)
