"""The controls of `WhatIf`: model, machine, setting and acceptance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as ipw

from mspeckv.settings import RESIDENCIES, refuse
from mspeckv_study.experiments import IDS, experiment
from mspeckv_study.whatif import MODELS
from mspeckv_study.whatif.machines import NAMES
from mspeckv_widgets.panels.control_inputs import METHODS, WIDTHS, put
from mspeckv_widgets.panels.what_if_setting import PUBLISHED, RATES, acceptance_of

_STYLE = {"description_width": "128px"}
_LAYOUT = {"width": "348px", "max_width": "100%"}
_MACHINES = {
    "origin": "origin: the tables' machine, fitted",
    "this": "this machine, calibrated in seconds",
}


class WhatIfControls:
    """Every control by name in `inputs`, in the order of `PUBLISHED`; ``experiment`` is the axis.

    Args:
        first: the experiment whose axis is shown first.
        on_change: told once of each change, or of several made by `set`.
        hidden: names of controls that are set from code alone.

    Raises:
        ValueError: no such experiment.
    """

    def __init__(
        self, first: str, on_change: Callable[[], None], hidden: Sequence[str] = ()
    ) -> None:
        self._first, self._on_change = experiment(first).id, on_change
        self._setting_many = False
        self.inputs: dict[str, Any] = self._build()
        self._follow("model")
        for name, control in self.inputs.items():
            control.observe(lambda _, which=name: self._changed(which), names="value")
        self.panel = ipw.VBox(
            [control for name, control in self.inputs.items() if name not in hidden],
            layout={"flex": "0 1 360px", "max_width": "100%"},
        )

    @property
    def values(self) -> dict[str, Any]:
        """Every control's value by name."""
        return {name: control.value for name, control in self.inputs.items()}

    def set(self, **values: Any) -> None:
        """Put values into controls, as a user would; one `on_change` at the end.

        Raises:
            ValueError: no such control, or a value that it does not have.
        """
        unknown = sorted(set(values) - set(self.inputs))
        if unknown:
            raise refuse("control", unknown[0], f"use some of {', '.join(self.inputs)}")
        self._setting_many = True
        try:
            # a model comes before the layers that it bounds
            for name in sorted(values, key=list(self.inputs).index):
                put(self.inputs[name], name, values[name])
            self._follow("own_acceptance")
        finally:
            self._setting_many = False
        self._on_change()

    def reset(self) -> None:
        """Put every control back."""
        self.set(experiment=self._first, **PUBLISHED)

    def _changed(self, name: str) -> None:
        self._follow(name)
        if not self._setting_many:
            self._on_change()

    def _follow(self, name: str) -> None:
        """Bound what depends on another control, and show the rates that are assumed."""
        mine, self._setting_many = self._setting_many, True
        try:
            if name == "model":
                growing = MODELS[self.inputs["model"].value].growing
                on_chip, resident = self.inputs["on_chip"], self.inputs["resident"]
                on_chip.max = resident.max = growing
                # a smaller model is shown at once
                resident.value = min(resident.value, growing - on_chip.value)
            own = self.inputs["own_acceptance"].value
            for rate in RATES:
                self.inputs[rate].disabled = not own
            if not own and name in ("model", "method", "prefill", "own_acceptance"):
                known = acceptance_of(
                    self.values, self.inputs["method"].value, self.inputs["prefill"].value
                )
                for rate in RATES:
                    self.inputs[rate].value = float(getattr(known, rate))
        finally:
            self._setting_many = mine

    def _build(self) -> dict[str, Any]:
        def dropdown(name: str, words: str, options: Any, tip: str, value: Any = None) -> Any:
            return ipw.Dropdown(
                options=options, value=PUBLISHED.get(name, value), description=words, tooltip=tip,
                style=_STYLE, layout=_LAYOUT,
            )  # fmt: skip

        def slider(name: str, words: str, low: int, high: int, step: int, tip: str) -> Any:
            return ipw.IntSlider(
                value=PUBLISHED[name], min=low, max=high, step=step, description=words,
                tooltip=tip, style=_STYLE, layout=_LAYOUT,
            )  # fmt: skip

        def rate(name: str, words: str, tip: str) -> Any:
            return ipw.FloatSlider(
                value=PUBLISHED[name], min=0.0, max=1.0, step=0.01, description=words, tooltip=tip,
                readout_format=".2f", style=_STYLE, layout=_LAYOUT,
            )  # fmt: skip

        def box(name: str, words: str, tip: str) -> Any:
            return ipw.Checkbox(
                value=PUBLISHED[name], description=words, tooltip=tip, style=_STYLE, layout=_LAYOUT
            )

        layers = MODELS[PUBLISHED["model"]].growing
        along = [(f"{one}: {experiment(one).title.lower()}", one) for one in IDS]
        models = [
            (f"{name}: {one.growing} of {one.layers} layers grow" if one.described else name, name)
            for name, one in MODELS.items()
        ]
        machines = [(_MACHINES.get(name, name), name) for name in NAMES]
        return {
            "experiment": dropdown(
                "experiment", "Along the axis", along, "Which experiment's axis the curves run "
                "along; every other control holds still", self._first,
            ),
            "model": dropdown("model", "Model", models, "The target's shape"),
            "machine": dropdown("machine", "Machine", machines, "Whose bandwidths and overheads"),
            "link_gbps": ipw.BoundedFloatText(
                value=PUBLISHED["link_gbps"], min=0.0, max=1000.0, step=0.1,
                description="Link, GB/s (0: own)", tooltip="Host to device; 0 is the machine's own",
                style=_STYLE, layout=_LAYOUT,
            ),
            "method": dropdown(
                "method", "Method", METHODS, "Which method the star marks"
            ),
            "prefill": slider(
                "prefill", "Prompt tokens", 1024, 131072, 1024, "Context read before decoding"
            ),
            "new_tokens": slider("new_tokens", "New tokens", 32, 4096, 32, "Tokens produced"),
            "on_chip": slider(
                "on_chip", "On-chip layers", 0, layers, 1,
                "Layers whose KV stays as floats on the device",
            ),
            "resident": slider(
                "resident", "Resident layers", 0, layers, 1,
                "Places for quantized layers on the device, of mspeckv alone",
            ),
            "bits": dropdown("bits", "KV width", WIDTHS, "Of mspeckv; other methods keep floats"),
            "nibble": box(
                "nibble", "Two int4 planes", "int8 as two planes, of which one is streamed and "
                "the other is what tier 1 reads",
            ),
            "residency": dropdown(
                "residency", "Resident places", RESIDENCIES,
                "static: fixed layers have them; lru: the layers used last, as published",
            ),
            "gamma": slider("gamma", "Gamma", 1, 16, 1, "Tokens proposed to tier 2 per round"),
            "draft_gamma": slider(
                "draft_gamma", "Draft gamma", 1, 8, 1, "Tokens tier 0 proposes to tier 1 at a time"
            ),
            "budget": slider(
                "budget", "Budget", 256, 16384, 256, "Prompt tokens that tier 1 may look at"
            ),
            "own_acceptance": box(
                "own_acceptance", "Own acceptance", "Set the three rates below; else those that "
                "are known of the pair at that context",
            ),
            "draft_middle": rate(
                "draft_middle", "Tier 1 keeps of 0", "Chance that tier 1 keeps a guess of tier 0"
            ),
            "middle_full": rate(
                "middle_full", "Tier 2 keeps of 1", "Chance that tier 2 keeps a guess of tier 1"
            ),
            "draft_full": rate(
                "draft_full", "Tier 2 keeps of 0",
                "Chance that tier 2 keeps a guess of tier 0, for vanilla",
            ),
        }  # fmt: skip
