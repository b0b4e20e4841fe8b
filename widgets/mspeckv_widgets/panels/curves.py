"""The curve of a preset in the live panel: modelled, published, and what has run here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import ipywidgets as widgets

from mspeckv_study.experiments import experiment
from mspeckv_widgets.compared import Spread, split_of
from mspeckv_widgets.panels.controls import Controls
from mspeckv_widgets.panels.curve_chart import CurveChart
from mspeckv_widgets.panels.prediction import Curve, Model, as_published
from mspeckv_widgets.record import RunRecord, Setting

_FIRST = "A2"
"""What is shown before a preset was chosen."""
_published = cache(as_published)


class Curves:
    """A preset's curve, redrawn while controls move.

    Args:
        on_place: told which values to put into the controls, when a place was clicked.

    Attributes:
        box: what is shown.
        chart: its figure.
    """

    def __init__(self, on_place: Callable[[dict[str, Any]], None]) -> None:
        self._on_place = on_place
        self._preset, self._layers = _FIRST, 0
        # residents that the curve has wherever on-chip layers leave room for them
        self._resident = 0
        self.chart = CurveChart(self._clicked)
        self.box = widgets.VBox([self.chart.figure], layout={"display": "none"})

    def draw(self, controls: Controls, model: Model, records: Sequence[RunRecord]) -> None:
        """Show the chosen preset's axis, all else as the controls say."""
        name = self._preset = controls.preset or _FIRST
        self._layers = controls.layers
        on_chip, resident = (int(controls.values[n]) for n in ("on_chip", "resident"))
        if resident != min(self._resident, controls.layers - on_chip) or name != "B1":
            self._resident = resident
        here: Curve | None = None
        runs: dict[int, Spread] = {}
        try:
            setting = _with_residents(controls.setting(), self._resident)
            runs = _runs_along(name, setting, records, controls.layers)
            here = model.here(name, setting)
        except ValueError:
            pass  # the tiles say what is wrong with the setting
        self.chart.draw(name, _published(name), here, runs, str(controls.values["method"]))

    def _clicked(self, place: int) -> None:
        axis = experiment(self._preset).axis
        values: dict[str, Any] = {axis: place}
        if axis == "on_chip":
            # what was drawn there: on-chip layers take residents' room
            values["resident"] = min(self._resident, self._layers - place)
        self._on_place(values)


def _runs_along(
    name: str, setting: Setting, records: Sequence[RunRecord], layers: int
) -> dict[int, Spread]:
    """Milliseconds of runs that are ``setting`` at another place of the axis."""
    axis = experiment(name).axis
    found: dict[int, list[float]] = {}
    for record in records:
        place = _value(record.setting, axis)
        if record.timed and record.setting == _at(setting, axis, place, layers):
            found.setdefault(place, []).append(split_of(record).total)
    return {place: Spread.of(ms) for place, ms in found.items()}


def _with_residents(setting: Setting, resident: int) -> Setting:
    config = setting.config
    policy = replace(config.policy, resident=resident)
    return replace(setting, config=replace(config, policy=policy))


def _value(setting: Setting, axis: str) -> int:
    config = setting.config
    if axis == "prefill":
        return setting.prefill
    return int(config.new_tokens if axis == "new_tokens" else getattr(config.policy, axis))


def _at(setting: Setting, axis: str, place: int, layers: int) -> Setting:
    """The setting at a place of the axis; on-chip layers take residents' room."""
    config = setting.config
    if axis == "prefill":
        return replace(setting, prefill=place)
    if axis == "new_tokens":
        return replace(setting, config=replace(config, new_tokens=place))
    changes: dict[str, Any] = {axis: place}
    if axis == "on_chip":
        changes["resident"] = min(config.policy.resident, layers - place)
    return replace(setting, config=replace(config, policy=replace(config.policy, **changes)))
