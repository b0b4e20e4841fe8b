"""The controls together: what bounds what, the presets, and the translation to a `Setting`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets

from mspeckv import KVPolicy, Link, RunConfig, Sampling, Speculation
from mspeckv.kv.codec import codecs
from mspeckv.settings import check_choice, check_count, refuse
from mspeckv_study.experiments import IDS, experiment
from mspeckv_widgets.charts.theme import PLACES
from mspeckv_widgets.charts.words import explained
from mspeckv_widgets.panels.control_inputs import DEFAULTS, IN_SIGHT, build_inputs, put
from mspeckv_widgets.record import Setting

_START = {"A1": (15, 15), "A2": (15, 0), "B1": (4, 15), "B2": (15, 15)}
"""On-chip and resident layers that a preset begins with."""
_HINTS = {
    "A1": "A1, what a longer prompt costs: run several lengths.",
    "A2": "A2, what residency buys: run resident 0, then 8, then 15.",
    "B1": "B1, what on-chip layers buy: run on-chip 4, then 8, 12 and 15.",
    "B2": "B2, whether it lasts: run more and more new tokens.",
}


def preset_values(name: str) -> dict[str, Any]:
    """What a preset puts into the controls: its experiment at classroom size."""
    preset = experiment(name).preset
    on_chip, resident = _START[name]
    return {
        "method": "mspeckv", "bits": 8, "on_chip": on_chip, "resident": resident, "gamma": 8,
        "link": "origin", "residency": "static", "auto": False, "nibble": False, "codec": "kivi",
        "prefill": preset.prefill, "budget": preset.speculation.budget, "new_tokens": 32,
    }  # fmt: skip


PRESETS = {name: (preset_values(name), _HINTS[name]) for name in IDS}


class Controls:
    """The setting's controls; `panel` is what is shown, most of them under *More*.

    On-chip and resident layers are bounded by the target's layer count: raising one lowers the
    other where their sum would pass it, and the rest is shown as offloaded.

    Attributes:
        inputs: every control by name.
        presets: their buttons.
        preset: the preset put in last; empty where there is none.
    """

    def __init__(self, document: str, on_change: Callable[[], None]) -> None:
        self.document = document
        self.preset = ""
        self._listeners = [on_change]
        self._width_before_triforce: Any = None
        self._setting_many = False
        # Trait callbacks may come on a subshell's thread while a cell sets values on its own.
        self._lock = threading.RLock()
        self.inputs: dict[str, Any] = build_inputs(codecs.names())
        self.layers = self.depth = int(self.inputs["on_chip"].max)
        self.placement = widgets.HTML()
        self.hint = widgets.HTML()
        self.presets = {name: self._preset_button(name) for name in PRESETS}
        for name, control in self.inputs.items():
            control.observe(self._observer(name), names="value")
        self._more = widgets.ToggleButton(
            value=False, description="More", icon="chevron-down",
            tooltip="Show the other settings", layout={"width": "100px"},
        )  # fmt: skip
        self._rest = widgets.VBox(
            [control for name, control in self.inputs.items() if name not in IN_SIGHT],
            layout={"display": "none"},
        )
        self._more.observe(self._unfold, names="value")
        self.panel = widgets.VBox(
            [
                *(self.inputs[name] for name in IN_SIGHT),
                self.placement,
                self.hint,
                self._more,
                self._rest,
            ],
        )
        self._show_placement()

    def setting(self) -> Setting:
        """What the controls say now.

        Raises:
            ValueError: the values do not go together.
        """
        value = self.values
        policy = KVPolicy(
            bits=value["bits"], on_chip=value["on_chip"], resident=value["resident"],
            nibble=value["nibble"], residency=value["residency"], codec=value["codec"],
        )  # fmt: skip
        policy.check_layers(self.layers)
        config = RunConfig(
            method=value["method"],
            new_tokens=value["new_tokens"],
            policy=policy,
            speculation=Speculation(
                gamma="auto" if value["auto"] else value["gamma"],
                draft_gamma="auto" if value["auto"] else value["draft_gamma"],
                budget=value["budget"],
                tier0=value["tier0"],
            ),
            sampling=Sampling(
                round(value["temperature"], 2), round(value["top_p"], 2), value["seed"]
            ),
            link=Link(value["link"]),
        )
        return Setting(self.document, value["prefill"], config)

    @property
    def values(self) -> dict[str, Any]:
        """Every control's value by name."""
        return {name: control.value for name, control in self.inputs.items()}

    def set(self, **values: Any) -> None:
        """Put values into controls, as a user would; told once at the end.

        Raises:
            ValueError: no such control, or a value that it does not have; those before it stay.
        """
        unknown = sorted(set(values) - set(self.inputs))
        if unknown:
            raise refuse("control", unknown[0], f"use some of {', '.join(self.inputs)}")
        if {"on_chip", "resident"} <= set(values):
            # where both do not fit, on-chip layers are what was meant
            for name in ("on_chip", "resident"):
                check_count(name, values[name], 0)
            room = self.layers - min(values["on_chip"], self.layers)
            values = {**values, "resident": min(values["resident"], room)}
        with self._together():
            # In the order of DEFAULTS: a method comes before the width it may constrain.
            for name in sorted(values, key=list(DEFAULTS).index):
                put(self.inputs[name], name, values[name])

    def listen(self, told: Callable[[], None]) -> None:
        """Call ``told`` too, once after each change."""
        self._listeners.append(told)

    def reset(self) -> None:
        """Put every control back."""
        self.hint.value, self.preset = "", ""
        self._width_before_triforce = None
        self._more.value = False
        self.set(**DEFAULTS)

    def apply_preset(self, name: str) -> None:
        """Put a preset's values in and show what to try with it.

        Raises:
            ValueError: no such preset.
        """
        check_choice("preset", name, tuple(PRESETS))
        values, hint = PRESETS[name]
        self.preset = name
        self.hint.value = f'<div class="mskv-small" role="status">{hint}</div>'
        self.set(**values)

    def set_model(self, layers: int, positions: int, depth: int | None = None) -> None:
        """Bound the controls by the loaded model: by its layers that grow, of ``depth``."""
        with self._together():
            self.layers, self.depth = layers, depth or layers
            for name in ("on_chip", "resident"):
                self.inputs[name].max = layers
            self.inputs["prefill"].max = max(128, positions - positions % 128 - 256)
            self._bound_layers("on_chip")

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Several changes, told as one."""
        with self._lock:
            mine, self._setting_many = self._setting_many, True
            try:
                yield
            finally:
                self._setting_many = mine
            if not mine:
                self._show_placement()
                for told in self._listeners:
                    told()

    def _preset_button(self, name: str) -> Any:
        button = widgets.Button(
            description=name, tooltip=PRESETS[name][1], layout={"width": "44px"}
        )
        button.on_click(lambda _: self.apply_preset(name))
        return button

    def _unfold(self, change: Any) -> None:
        self._rest.layout.display = "" if change["new"] else "none"
        self._more.description = "Less" if change["new"] else "More"
        self._more.icon = "chevron-up" if change["new"] else "chevron-down"

    def _observer(self, name: str) -> Callable[[Any], None]:
        def changed(_: Any) -> None:
            with self._together():
                if name in ("on_chip", "resident"):
                    self._bound_layers(name)
                if name == "method":
                    self._follow_method()
                if name == "auto":
                    for length in ("gamma", "draft_gamma"):
                        self.inputs[length].disabled = bool(self.inputs["auto"].value)

        return changed

    def _bound_layers(self, moved: str) -> None:
        other = self.inputs["resident" if moved == "on_chip" else "on_chip"]
        rest = self.layers - int(self.inputs[moved].value)
        other.value = min(other.value, rest)

    def _follow_method(self) -> None:
        """Triforce keeps floats by definition: show that, and give the width back afterwards."""
        bits = self.inputs["bits"]
        if self.inputs["method"].value == "triforce":
            if not bits.disabled:
                self._width_before_triforce = bits.value
            bits.value, bits.disabled = "full", True
        elif bits.disabled:
            bits.disabled = False
            if self._width_before_triforce is not None:
                bits.value = self._width_before_triforce

    def _show_placement(self) -> None:
        policy = KVPolicy(
            bits=self.inputs["bits"].value,
            on_chip=self.inputs["on_chip"].value,
            resident=self.inputs["resident"].value,
            residency=self.inputs["residency"].value,
        )
        places = policy.placement(self.layers)
        counts = {name: places.count(name) for name in PLACES}
        bars = "".join(
            f'<span style="flex:{counts[name]};background-color:{style.colour};'
            f'background-image:{style.pattern}"></span>'
            for name, style in PLACES.items()
            if counts[name]
        )
        words = ", ".join(f"<b>{count}</b> {explained(name)}" for name, count in counts.items())
        grow = f" that grow, of {self.depth}" if self.depth > self.layers else ""
        self.placement.value = (
            '<div class="mskv-placement mskv-small" role="status">'
            f"{words} of {self.layers} layers{grow}"
            f'<div class="mskv-bar" aria-hidden="true">{bars}</div></div>'
        )
