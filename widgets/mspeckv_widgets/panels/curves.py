"""The curve of a preset in the live panel: modelled, published, and what has run here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import ipywidgets as widgets

from mspeckv.experiments import experiment
from mspeckv_widgets.compared import Spread, split_of
from mspeckv_widgets.panels.controls import Controls, preset_values
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
        self._on_chip = self._resident = 0
        self.chart = CurveChart(self._clicked)
        self.box = widgets.VBox([self.chart.figure], layout={"display": "none"})

    def draw(self, controls: Controls, model: Model, records: Sequence[RunRecord]) -> None:
        """Show the chosen preset's axis, all else as the controls say."""
        name = self._preset = controls.preset or _FIRST
        self._layers = controls.layers
        self._resident = int(controls.values["resident"])
        here: Curve | None = None
        runs: dict[int, Spread] = {}
        try:
            setting = controls.setting()
            here = model.here(name, setting)
            runs = _runs_along(name, setting, records)
        except ValueError:
            pass  # the tiles say what is wrong with the setting
        self.chart.draw(name, _published(name), here, runs)

    def _clicked(self, place: int) -> None:
        axis = experiment(self._preset).axis
        values: dict[str, Any] = {axis: place}
        if axis == "on_chip":
            values["resident"] = min(preset_values("B1")["resident"], self._layers - place)
        self._on_place(values)


def _runs_along(name: str, setting: Setting, records: Sequence[RunRecord]) -> dict[int, Spread]:
    """Milliseconds of finished runs that differ from ``setting`` along the axis alone."""
    axis = experiment(name).axis
    found: dict[int, list[float]] = {}
    for record in records:
        if record.finished and _without(record.setting, axis) == _without(setting, axis):
            found.setdefault(_value(record.setting, axis), []).append(split_of(record).total)
    return {place: Spread.of(ms) for place, ms in found.items()}


def _value(setting: Setting, axis: str) -> int:
    config = setting.config
    if axis == "prefill":
        return setting.prefill
    return int(config.new_tokens if axis == "new_tokens" else getattr(config.policy, axis))


def _without(setting: Setting, axis: str) -> Setting:
    """The setting with its place on the axis left out; on-chip layers take residents' room."""
    config = setting.config
    if axis == "prefill":
        return replace(setting, prefill=1)
    if axis == "new_tokens":
        return replace(setting, config=replace(config, new_tokens=1))
    policy = replace(config.policy, resident=0)
    if axis == "on_chip":
        policy = replace(policy, on_chip=0)
    return replace(setting, config=replace(config, policy=policy))
