"""`Ablation`: an experiment's results beside the published ones, and sweeps to watch."""

from __future__ import annotations

import html
from datetime import datetime
from pathlib import Path
from typing import Any

import ipywidgets as ipw

from mspeckv import Pair
from mspeckv.settings import check_kind
from mspeckv_study.experiments import IDS, Experiment, Match, experiment, findings, grids
from mspeckv_study.experiments import TextTable as Grid
from mspeckv_widgets.charts.table import table_html
from mspeckv_widgets.panel import button, panel
from mspeckv_widgets.panels.ablation_chart import AblationChart
from mspeckv_widgets.panels.sweep import Order, SweepRunner, SweepView
from mspeckv_widgets.panels.worker import WAITS
from mspeckv_widgets.panels.worker_panel import WorkerPanel, status_line
from mspeckv_widgets.results import FEW_TOKENS, find_results, load_results, match_of, reduced

TICK = 0.2
"""Seconds between two looks at a sweep."""
TABS = ("Findings", "Speed", "Speed-ups", "KV bytes")
_STYLE = {"description_width": "112px"}


class Ablation(WorkerPanel[SweepRunner]):
    """Pick an experiment, look at its results, or run a reduced sweep and watch its rows arrive.

    Show it by making it a cell's last expression. Sweeps run on a thread of their own; from code,
    `load`, `run`, `stop`, `reset` and `wait` do what the buttons do.

    Args:
        name: the experiment shown first.
        folder: of results; default: see `mspeckv_widgets.results.find_results`.
        pair: a loaded pair; without one, the default pair is loaded at the first sweep.

    Raises:
        ValueError: no such experiment.
    """

    def __init__(
        self, name: str = "A1", folder: str | Path | None = None, pair: Pair | None = None
    ) -> None:
        check_kind("pair", pair, Pair | None, "what mspeckv.load_pair gives, or nothing")
        super().__init__(SweepRunner(pair), TICK)
        self._note, self._failed = "", False
        self.match: Match | None = None
        self.inputs = self._build(experiment(name), folder)
        self._status = ipw.HTML(layout={"flex": "1 1 260px"})
        self._tables = [ipw.HTML() for _ in TABS]
        self.buttons = {
            "load": button("Load results", "folder-open", "Read the rows of the folder"),
            "run": button("Run sweep", "play", "Run the chosen cells here, now"),
            "stop": button("Stop", "stop", "End the sweep, keep the rows it has made"),
            "reset": button("Reset", "undo", "End the sweep, put every control back, load"),
        }
        actions = (self.load, self.run, self.stop, self.reset)
        for control, action in zip(self.buttons.values(), actions, strict=True):
            control.on_click(lambda _, act=action: act())
        self._first = experiment(name).id, self.inputs["folder"].value
        self.inputs["experiment"].observe(lambda _: self._changed(), names="value")
        self._read()
        self.chart = AblationChart(self._title(), self.match)
        self.panel = self._assemble()
        self._offer()
        self._draw()

    @property
    def state(self) -> str:
        """``idle``, ``loading``, ``running``, ``done``, ``stopped`` or ``failed``."""
        return "failed" if self._failed else self.runner.view().state

    @property
    def message(self) -> str:
        """The status line's words: what is shown, or what went wrong."""
        return self._note

    def load(self) -> None:
        """Show the results of the folder, in place of a sweep.

        What goes wrong is said in the status line.
        """
        with self._drawing:
            # at once: a sweep that ends meanwhile draws its rows before these, or not at all
            self.runner.forget()
            self._read()
            self._draw()

    def run(self) -> None:
        """Start a sweep over the chosen cells; nothing happens while one is at work."""
        if self.runner.busy:
            return
        value = {name: control.value for name, control in self.inputs.items()}
        order = Order(
            value["experiment"], tuple(value["values"]), tuple(value["variants"]),
            value["new_tokens"], tuple(range(1, value["seeds"] + 1)),
        )  # fmt: skip
        if not order.trials:
            self._say("choose at least one value and one variant", failed=True)
            self._draw()
            return
        try:
            reduced(experiment(order.name), order.values, order.variants, order.new_tokens)
        except ValueError as error:
            self._say(str(error), failed=True)
            self._draw()
            return
        self._say("")
        if self.runner.start(order):
            self._begin_painting()

    def reset(self) -> None:
        """End the sweep, put every control back and load the results."""
        self.runner.forget()
        self.inputs["folder"].value = self._first[1]
        self.inputs["experiment"].value = self._first[0]
        self._offer()
        self.load()

    def _read(self) -> None:
        name = self.inputs["experiment"].value
        try:
            self.match = load_results(name, self.inputs["folder"].value)
            table = self.match.table
            made = "; ".join(table.machines)
            now = datetime.now().strftime("%H:%M:%S")
            self._say(f"Results of {name}, {len(table.seeds)} repeats, on {made}; read at {now}")
        except (ValueError, OSError) as error:
            self.match = None
            self._say(str(error), failed=True)

    def _say(self, words: str, failed: bool = False) -> None:
        self._note, self._failed = words, failed

    def _changed(self) -> None:
        """Another experiment: offer its cells, show its results."""
        self._offer()
        self.load()

    def _offer(self) -> None:
        """Let the controls offer the experiment's own values and variants: few to begin with."""
        known = experiment(self.inputs["experiment"].value)
        values, variants = self.inputs["values"], self.inputs["variants"]
        # a browser stumbles over a selected place that the new, shorter list has not got
        values.value = variants.value = ()
        values.options = known.values
        values.value = known.values[:1]
        variants.options = known.variants
        variants.value = tuple(dict.fromkeys((known.reference, "mspeckv")))
        self.inputs["new_tokens"].value = FEW_TOKENS
        self.inputs["new_tokens"].disabled = known.axis == "new_tokens"
        self.inputs["seeds"].value = 1

    def _build(self, known: Experiment, folder: str | Path | None) -> dict[str, Any]:
        try:
            place = str(find_results(folder))
        except ValueError:
            check_kind("folder", folder, str | Path | None, "a folder's path")
            place = str(folder or "results")
        wide, tall = {"width": "330px"}, {"width": "330px", "height": "124px"}
        named = [(f"{one}: {experiment(one).title.lower()}", one) for one in IDS]
        return {
            "experiment": ipw.Dropdown(
                options=named, value=known.id, description="Experiment", style=_STYLE, layout=wide,
                tooltip="Which ablation is looked at",
            ),
            "folder": ipw.Text(
                value=place, description="Results folder", style=_STYLE, layout=wide,
                tooltip="Folder that `mspeckv run` wrote", continuous_update=False,
            ),
            "values": ipw.SelectMultiple(
                description="Values to run", style=_STYLE, layout=tall,
                tooltip="Places of the axis for a sweep; Ctrl or Shift picks several",
            ),
            "variants": ipw.SelectMultiple(
                description="Variants to run", style=_STYLE, layout=tall,
                tooltip="What a sweep compares; Ctrl or Shift picks several",
            ),
            "new_tokens": ipw.IntSlider(
                value=FEW_TOKENS, min=8, max=64, step=8, description="New tokens", style=_STYLE,
                layout=wide, tooltip="Tokens of each trial of a sweep; few are fast and noisy",
            ),
            "seeds": ipw.IntSlider(
                value=1, min=1, max=10, description="Repeats", style=_STYLE, layout=wide,
                tooltip="Trials of each cell, each with its seed; six give an interval",
            ),
        }  # fmt: skip

    def _assemble(self) -> Any:
        wrap = {"flex_flow": "row wrap", "align_items": "center"}
        bar = ipw.HBox([*self.buttons.values(), self._status], layout=wrap)
        left = ipw.VBox(list(self.inputs.values()), layout={"width": "350px", "flex": "0 0 auto"})
        room = {"flex": "1 1 520px", "min_width": "280px", "overflow": "hidden"}
        right = ipw.VBox([self.chart.figure], layout=room)
        top = ipw.HBox([left, right], layout={"flex_flow": "row wrap"})
        tabs = ipw.Tab(children=self._tables, titles=TABS)
        return panel("Ablation", [bar, top, tabs])

    def _draw(self) -> bool:
        """Draw what has changed; returns whether the worker is busy."""
        with self._drawing:
            view = self.runner.view()
            self.buttons["run"].disabled = self.buttons["load"].disabled = view.busy
            self.buttons["stop"].disabled = not view.busy
            self._status.value = self._status_html(view)
            if (view.version, view.busy) == self._drawn:
                return view.busy
            self._drawn = view.version, view.busy
            if view.order is not None:
                known = experiment(view.order.name)
                self.match = match_of(known, view.rows) if view.rows else None
            self._show(self.match)
            return view.busy

    def _show(self, match: Match | None) -> None:
        self.chart.draw(self._title(), match)
        pages = ["", "", "", ""] if match is None else [findings_html(match), *tables(match)]
        for place, page in zip(self._tables, pages, strict=True):
            place.value = page or '<em class="mskv-small">No rows yet.</em>'

    def _title(self) -> str:
        known = experiment(self.inputs["experiment"].value)
        return f"{known.id}: {known.question}"

    def _status_html(self, view: SweepView) -> str:
        words, done, total = self._note, 0, 0
        if view.order is not None and not self._failed:
            words = sweep_words(view)
            if view.busy:
                done, total = len(view.rows), view.order.trials
        return status_line(self.state, html.escape(words), done, total)


def sweep_words(view: SweepView) -> str:
    """How far a sweep is."""
    assert view.order is not None
    if view.state == "failed":
        return f"Not run: {view.error}"
    if view.waits:
        return WAITS
    if view.state == "loading":
        return "Loading the model pair (a few seconds)"
    done = f"{len(view.rows)} of {view.order.trials} trials"
    failed = sum(not row.ok for row in view.rows)
    done += f", {failed} failed" if failed else ""
    if view.state == "running":
        left = "" if view.left_seconds is None else f", about {view.left_seconds:.0f} s left"
        return f"Sweep at work: {done}{left}"
    return f"This sweep ({'stopped' if view.state == 'stopped' else 'done'}): {done}"


def findings_html(match: Match) -> str:
    """What the numbers say, as a list; verdicts in words."""
    items = "".join(
        f"<li><b>{html.escape(one.topic)}</b>{f' ({one.verdict})' if one.verdict else ''}: "
        f"{html.escape(one.text)}</li>"
        for one in findings(match)
    )
    return f"<ul>{items}</ul>"


def tables(match: Match) -> list[str]:
    """The experiment's tables as HTML: speed, speed-ups, bytes."""
    return [grid_html(grid) for grid in grids(match)[-3:]]


def grid_html(grid: Grid) -> str:
    """One table."""
    return table_html(grid.caption, grid.heads, grid.rows, text=grid.words)
