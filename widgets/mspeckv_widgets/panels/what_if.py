"""`WhatIf`: what a model on another machine would do, while a slider moves; modelled throughout."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import ipywidgets as ipw

from mspeckv.settings import check_kind, refuse
from mspeckv_study.experiments import Match
from mspeckv_study.whatif import MODELS
from mspeckv_study.whatif import Forecast as Prediction
from mspeckv_widgets.charts.table import table_html
from mspeckv_widgets.panel import HasPanel, button, panel
from mspeckv_widgets.panels.controls import Controls
from mspeckv_widgets.panels.what_if_chart import OursChart, SpeedChart, StepsChart
from mspeckv_widgets.panels.what_if_controls import WhatIfControls
from mspeckv_widgets.panels.what_if_setting import (
    AXES,
    CONTEXT_SCALE,
    SHARED,
    TOKENS_SCALE,
    at_full_size,
    classroom,
    curves,
    predict_all,
    published_setting,
)
from mspeckv_widgets.results import load_results

_GIGA = 1e9


@runtime_checkable
class Live(Protocol):
    """What is needed of a live panel (`mspeckv_widgets.LiveLab`) whose setting is followed."""

    controls: Controls


class WhatIf(HasPanel):
    """Sliders for model, machine and setting; curves beside the published points.

    Show it by making it a cell's last expression. From code, ``panel.set(prefill=32768)`` moves
    controls, `published` and `reset` do what the buttons do, and ``panel.found`` has the
    predictions by method. The live panel holds one in its tab *Elsewhere*.

    Args:
        lab: a live panel. Its controls are the setting then, at full size
            (`what_if_setting.at_full_size`), and only model, machine and rates are set here.
        experiment: whose axis is shown first.
        folder: of our results; default: see `mspeckv_widgets.results.find_results`.
        awake: whether a change of the live panel is drawn; where not, `follow` catches up.

    Attributes:
        controls: see `WhatIfControls`.
        found: `mspeckv.what_if`'s predictions of the setting, by method.
        redraw_ms: measured time of the last redraw, without the browser's part.

    Raises:
        ValueError: no such experiment.
    """

    def __init__(
        self,
        lab: Live | None = None,
        experiment: str = "A1",
        folder: str | None = None,
        awake: Callable[[], bool] = lambda: True,
    ) -> None:
        check_kind("lab", lab, Live | None, "a LiveLab, or nothing")
        self._lock = threading.RLock()
        self._lab, self._folder = lab, folder
        self._matches: dict[str, Match | None] = {}
        self._ours_shown = ""
        self._note, self._failed = "", False
        self.found: dict[str, Prediction] = {}
        self.redraw_ms = 0.0
        self.speed, self.steps, self.ours = SpeedChart(), StepsChart(), OursChart()
        self._status = ipw.HTML(layout={"flex": "1 1 300px"})
        self._cost, self._memory = ipw.HTML(), ipw.HTML()
        self._following, self._preset = False, ""
        self.controls = WhatIfControls(experiment, self._changed, SHARED if lab else ())
        self.buttons = {
            "published": button("As published", "book", "Put the table's setting in"),
            "reset": button("Reset", "undo", "Put every control back"),
        }
        self.buttons["published"].on_click(lambda _: self.published())
        self.buttons["reset"].on_click(lambda _: self.reset())
        self.panel = self._assemble()
        if lab is None:
            self._draw()
        else:
            lab.controls.listen(lambda: self.follow() if awake() else None)
            self.follow()

    @property
    def message(self) -> str:
        """The status line's words: what is shown, or what is wrong with the setting."""
        return self._note

    def set(self, **values: Any) -> None:
        """Move controls by name; see `WhatIfControls.set`.

        Raises:
            ValueError: no such control, or a value that it does not have; or one that is the live
                panel's.
        """
        for name, value in values.items():
            if self._lab is not None and name in SHARED:
                raise refuse(name, value, "set it in the live panel, whose setting this is")
        self.controls.set(**values)

    def published(self) -> None:
        """Put the shown experiment's published setting in; a live panel gets it at its own size."""
        wanted = published_setting(self.controls.values["experiment"])
        if self._lab is None:
            self.controls.set(**wanted)
            return
        rest = {name: value for name, value in wanted.items() if name not in SHARED}
        self.controls.set(**rest)
        live = self._lab.controls
        live.set(**classroom(wanted, live.layers, self._fit))

    def reset(self) -> None:
        """Put every control back; what a live panel says stays."""
        self.controls.reset()
        self.follow()

    def follow(self) -> None:
        """Take the live panel's setting, at full size; without one nothing happens."""
        if self._lab is None or self._following:
            return
        live = self._lab.controls
        wanted = at_full_size(live.values, live.layers, self.controls.values["model"])
        if live.preset and live.preset != self._preset:
            wanted["experiment"] = live.preset
        self._following, self._preset = True, live.preset
        try:
            self.controls.set(**wanted)
        finally:
            self._following = False

    def _changed(self) -> None:
        """A control has moved: another model has other layers, which the live panel's share out."""
        self.follow()
        if self._lab is None or self._following:
            self._draw()

    def _fit(self, name: str, value: float) -> int:
        """The nearest that a slider of the live panel allows."""
        assert self._lab is not None
        slider = self._lab.controls.inputs[name]
        steps = round((value - slider.min) / slider.step)
        return int(min(max(slider.min + steps * slider.step, slider.min), slider.max))

    def _draw(self) -> None:
        """Predict and draw; a setting that is not allowed leaves the last drawing, and is said."""
        with self._lock:
            start = time.perf_counter()
            values = self.controls.values
            name = values["experiment"]
            try:
                found = predict_all(values)
                where, speeds = curves(name, values)
            except ValueError as error:
                self._say(f"Not drawn: {error}", failed=True)
                return
            self.found = found
            here = found[values["method"]]
            at = float(values[AXES[name]])
            self.speed.draw(name, where, speeds, (at, here.tokens_per_second))
            self.steps.draw(found)
            if name != self._ours_shown:
                self.ours.draw(name, self._match(name))
                self._ours_shown = name
            self._cost.value, self._memory.value = cost_html(found), memory_html(found)
            self._say(self._words(here))
            self.redraw_ms = (time.perf_counter() - start) * 1e3

    def _words(self, here: Prediction) -> str:
        """The setting in one line, and its time."""
        fits = "" if here.fits else "; it does not fit that machine's memory"
        said = (
            f"{here.method} of {here.model} on {here.hardware}: {here.ms_per_token:.1f} ms per "
            f"token (modelled){fits}"
        )
        if self._lab is None:
            return said
        values, live = self.controls.values, self._lab.controls.values
        said += (
            f". The setting is the panel's, contexts x {CONTEXT_SCALE}, "
            f"new tokens x {TOKENS_SCALE}, layers by their share: "
            f"{values['prefill']:,} + {values['new_tokens']:,} tokens, {values['on_chip']} on-chip "
            f"and {values['resident']} resident of {MODELS[values['model']].growing} layers"
        )
        if live["auto"] or live["tier0"] != "draft":
            said += ", with the draft as tier 0 and fixed lengths"
        if values["method"] in ("autoregressive", "vanilla") and live["bits"] != "full":
            said += f", and floats, as {values['method']} was published"
        if live["nibble"] and values["method"] == "mspeckv":
            said += ", and a tier 1 that reads the streamed plane"
        return said

    def _match(self, name: str) -> Match | None:
        """Our results of an experiment, read once."""
        if name not in self._matches:
            try:
                self._matches[name] = load_results(name, self._folder)
            except (ValueError, OSError):
                self._matches[name] = None
        return self._matches[name]

    def _say(self, words: str, failed: bool = False) -> None:
        self._note, self._failed = words, failed
        kind = " mskv-error" if failed else ""
        self._status.value = (
            f'<div class="mskv-status{kind}" role="status" style="margin-left:8px">'
            f"{html.escape(words)}</div>"
        )

    def _assemble(self) -> Any:
        wrap = {"flex_flow": "row wrap", "align_items": "center"}
        bar = ipw.HBox([*self.buttons.values(), self._status], layout=wrap)
        room = {"flex": "1 1 460px", "min_width": "280px", "overflow": "hidden"}
        charts = ipw.VBox([self.speed.figure, self.steps.figure], layout=room)
        tables = ipw.VBox(
            [self._cost, self._memory], layout={"flex": "1 1 420px", "min_width": "280px"}
        )
        ours = ipw.VBox([self.ours.figure], layout=room)
        top = ipw.HBox([self.controls.panel, charts], layout={"flex_flow": "row wrap"})
        below = ipw.HBox([tables, ours], layout={"flex_flow": "row wrap"})
        return panel("What if", [bar, top, below], self._resize)

    def _resize(self, room: int) -> None:
        """Keep the figures within a narrow panel of ``room`` pixels; 0: it is wide."""
        self.speed.fit(room)
        for chart in (self.speed, self.steps, self.ours):
            chart.figure.update_layout(autosize=not room, width=room or None)


def cost_html(found: Mapping[str, Prediction]) -> str:
    """Time and traffic of every method, and plain decoding in the same device memory."""
    shown = list(found.values())
    control = [one.equal_memory for one in shown]
    assert all(one is not None for one in control)

    def plain(words: Any) -> list[str]:
        return [words(one) if one is not None and one.fits else "does not fit" for one in control]

    rows = [
        ("ms per token", *(f"{one.ms_per_token:.2f}" for one in shown)),
        ("tokens/s", *(f"{one.tokens_per_second:.2f}" for one in shown)),
        ("tokens per round", *(f"{one.tokens_per_round:.2f}" for one in shown)),
        ("link MB per token", *(f"{one.link_bytes_per_token / 1e6:.1f}" for one in shown)),
        ("device GB", *(f"{one.device_bytes / _GIGA:.2f}" for one in shown)),
        ("fits the machine", *("yes" if one.fits else "no" for one in shown)),
        ("plain decoding in these GB: on-chip layers", *plain(lambda one: f"{one.on_chip}")),
        ("its ms per token", *plain(lambda one: f"{one.ms_per_token:.2f}")),
        ("its time over the method's", *plain(lambda one: f"{one.speedup:.2f}")),
    ]
    return table_html("This setting by method (modelled)", ("", *found), rows, text=1)


def memory_html(found: Mapping[str, Prediction]) -> str:
    """Bytes by place."""
    shown = list(found.values())
    parts = [part for part in shown[0].memory.parts if any(o.memory.parts[part] for o in shown)]
    rows = [
        (part.replace("_", "-"), *(f"{one.memory.parts[part] / _GIGA:.3f}" for one in shown))
        for part in parts
    ]
    rows.append(("sum on the device", *(f"{one.device_bytes / _GIGA:.3f}" for one in shown)))
    rows.append(("on the host: offloaded KV", *(f"{o.host_bytes / _GIGA:.3f}" for o in shown)))
    return table_html("Memory by place, GB (modelled)", ("", *found), rows, text=1)
