"""The control panel and its translation to a `Setting`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from mspeckv import KVPolicy, Link, RunConfig, Sampling, Speculation
from mspeckv_widgets.charts.theme import PLACES
from mspeckv_widgets.record import Setting

# The default target's; `Controls.set_model` puts the loaded model's in its place.
DEFAULT_LAYERS = 30
DEFAULT_POSITIONS = 8192

METHODS = (
    ("autoregressive (no guessing)", "autoregressive"),
    ("vanilla (0 guesses, 2 checks)", "vanilla"),
    ("triforce (0, 1, 2; floats)", "triforce"),
    ("mspeckv (0, 1, 2; packed)", "mspeckv"),
)
WIDTHS = (("int8", 8), ("int4", 4), ("int2", 2), ("float", "full"))
LINKS = (
    ("off: RAM speed", "off"),
    ("live: slow, emulated", "live"),
    ("origin: slowest, emulated", "origin"),
)
GUESSERS = (("the draft", "draft"), ("lookup in the text", "lookup"), ("nobody", "none"))
DEFAULTS: dict[str, Any] = {
    "method": "mspeckv",
    "bits": 8,
    "on_chip": 15,
    "resident": 0,
    "tier0": "draft",
    "auto": False,
    "gamma": 8,
    "draft_gamma": 3,
    "budget": 256,
    "prefill": 1024,
    "new_tokens": 32,
    "temperature": 0.6,
    "link": "live",
    "seed": 1,
}
CLASSROOM = {"method": "mspeckv", "prefill": 1024, "budget": 256, "bits": 8, "gamma": 8}
PRESETS: dict[str, tuple[dict[str, Any], str]] = {
    "A2": (
        {**CLASSROOM, "link": "origin", "on_chip": 15, "resident": 0},
        "A2, what residency buys: run with resident 0, then 8, then 15, and compare.",
    ),
    "B1": (
        {**CLASSROOM, "link": "origin", "on_chip": 4, "resident": 15},
        "B1, what on-chip layers buy: run with on-chip 4, then 8, 12 and 15, and compare.",
    ),
}
_STYLE = {"description_width": "104px"}
_LAYOUT = {"width": "348px", "max_width": "100%"}


class Controls:
    """The setting controls; `panel` is what is shown.

    On-chip and resident layers are bounded by the target's layer count: raising one lowers the
    other where their sum would pass it, and the rest is shown as offloaded.
    """

    def __init__(self, document: str, on_change: Callable[[], None]) -> None:
        self.document = document
        self.layers = DEFAULT_LAYERS
        self._on_change = on_change
        self._width_before_triforce: Any = None
        self._setting_many = False
        # Trait callbacks may come on a subshell's thread while a cell sets values on its own.
        self._lock = threading.RLock()
        self.inputs: dict[str, Any] = self._build()
        self.placement = widgets.HTML()
        self.hint = widgets.HTML()
        self.presets = {name: self._preset_button(name) for name in PRESETS}
        for name, control in self.inputs.items():
            control.observe(self._observer(name), names="value")
        self.panel = widgets.VBox(
            [
                widgets.HTML('<div class="mskv-title">Setting</div>'),
                widgets.HBox(list(self.presets.values())),
                self.hint,
                *(self.inputs[name] for name in ("method", "bits", "on_chip", "resident")),
                self.placement,
                *(self.inputs[name] for name in ("link", "tier0", "auto")),
                *(self.inputs[name] for name in ("gamma", "draft_gamma", "budget")),
                *(self.inputs[name] for name in ("prefill", "new_tokens", "temperature", "seed")),
            ],
            layout={"flex": "0 1 350px", "max_width": "100%"},
        )
        self._show_placement()

    def setting(self) -> Setting:
        """What the controls say now.

        Raises:
            ValueError: the values do not go together.
        """
        value = self.values
        policy = KVPolicy(bits=value["bits"], on_chip=value["on_chip"], resident=value["resident"])
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
            sampling=Sampling(temperature=round(value["temperature"], 2), seed=value["seed"]),
            link=Link(value["link"]),
        )
        return Setting(self.document, value["prefill"], config)

    @property
    def values(self) -> dict[str, Any]:
        """Every control's value by name."""
        return {name: control.value for name, control in self.inputs.items()}

    def set(self, **values: Any) -> None:
        """Put values into controls, as a user would; one `on_change` at the end."""
        with self._lock:
            self._setting_many = True
            try:
                # In the order of DEFAULTS: a method comes before the width it may constrain.
                for name in sorted(values, key=list(DEFAULTS).index):
                    self.inputs[name].value = values[name]
            finally:
                self._setting_many = False
            self._show_placement()
            self._on_change()

    def reset(self) -> None:
        """Put every control back."""
        self.hint.value = ""
        self._width_before_triforce = None
        self.set(**DEFAULTS)

    def apply_preset(self, name: str) -> None:
        """Put a preset's values in and show what to try with it."""
        values, hint = PRESETS[name]
        self.set(**values)
        self.hint.value = f'<div class="mskv-small" role="status">{hint}</div>'

    def set_model(self, layers: int, positions: int) -> None:
        """Bound the controls by the loaded model."""
        with self._lock:
            self.layers = layers
            for name in ("on_chip", "resident"):
                self.inputs[name].max = layers
            self.inputs["prefill"].max = max(128, positions - positions % 128 - 256)
            self._bound_layers("on_chip")
            self._show_placement()

    def _build(self) -> dict[str, Any]:
        def dropdown(name: str, words: str, options: Any, tip: str) -> Any:
            return widgets.Dropdown(
                options=options, value=DEFAULTS[name], description=words, tooltip=tip,
                description_allow_html=False, style=_STYLE, layout=_LAYOUT,
            )  # fmt: skip

        def slider(name: str, words: str, low: int, high: int, step: int, tip: str) -> Any:
            return widgets.IntSlider(
                value=DEFAULTS[name], min=low, max=high, step=step, description=words,
                tooltip=tip, continuous_update=False, style=_STYLE, layout=_LAYOUT,
            )  # fmt: skip

        most = DEFAULT_LAYERS
        return {
            "method": dropdown("method", "Method", METHODS, "Which tiers guess, which check"),
            "bits": dropdown("bits", "KV width", WIDTHS, "Width of stored KV of tier 2"),
            "on_chip": slider(
                "on_chip", "On-chip layers", 0, most, 1,
                "Layers whose KV stays as floats on the device",
            ),
            "resident": slider(
                "resident", "Resident layers", 0, most, 1,
                "Layers whose KV stays on the device quantized; no effect at width float",
            ),
            "link": dropdown("link", "Link", LINKS, "Speed of the path between host and device"),
            "tier0": dropdown(
                "tier0", "Tier 0", GUESSERS, "Who guesses first: the small draft, what followed "
                "the same words before, or nobody",
            ),
            "auto": widgets.Checkbox(
                value=DEFAULTS["auto"], description="Automatic lengths",
                tooltip="Gamma, draft gamma and the tiers in use follow measured cost and "
                "acceptance, round by round", indent=True, style=_STYLE, layout=_LAYOUT,
            ),
            "gamma": slider("gamma", "Gamma", 1, 16, 1, "Tokens proposed to tier 2 per round"),
            "draft_gamma": slider(
                "draft_gamma", "Draft gamma", 1, 8, 1, "Tokens tier 0 proposes to tier 1 at a time"
            ),
            "budget": slider(
                "budget", "Budget", 64, 1024, 32, "Prompt tokens that tier 1 may look at"
            ),
            "prefill": slider(
                "prefill", "Prompt tokens", 128, DEFAULT_POSITIONS - 256, 128,
                "Prompt tokens read before decoding (prefill)",
            ),
            "new_tokens": slider("new_tokens", "New tokens", 8, 256, 8, "Tokens to generate"),
            "temperature": widgets.FloatSlider(
                value=DEFAULTS["temperature"], min=0.0, max=1.5, step=0.1,
                description="Temperature", tooltip="0 is greedy: always the likeliest token",
                continuous_update=False, readout_format=".1f", style=_STYLE, layout=_LAYOUT,
            ),
            "seed": widgets.BoundedIntText(
                value=DEFAULTS["seed"], min=0, max=2**31 - 1, description="Seed",
                tooltip="Same seed and setting, same text", style=_STYLE,
                layout={"width": "200px"},
            ),
        }  # fmt: skip

    def _preset_button(self, name: str) -> Any:
        button = widgets.Button(
            description=f"Preset {name}", tooltip=PRESETS[name][1], layout={"width": "160px"}
        )
        button.on_click(lambda _: self.apply_preset(name))
        return button

    def _observer(self, name: str) -> Callable[[Any], None]:
        def changed(_: Any) -> None:
            with self._lock:
                if name in ("on_chip", "resident"):
                    self._bound_layers(name)
                if name == "method":
                    self._follow_method()
                if name == "auto":
                    for length in ("gamma", "draft_gamma"):
                        self.inputs[length].disabled = bool(self.inputs["auto"].value)
                if not self._setting_many:
                    self._show_placement()
                    self._on_change()

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
        )
        places = policy.placement(self.layers)
        counts = {name: places.count(name) for name in PLACES}
        bars = "".join(
            f'<span style="flex:{counts[name]};background-color:{style.colour};'
            f'background-image:{style.pattern}"></span>'
            for name, style in PLACES.items()
            if counts[name]
        )
        words = ", ".join(f"<b>{count}</b> {name}" for name, count in counts.items())
        self.placement.value = (
            f'<div class="mskv-placement mskv-small" role="status">{words} of {self.layers} layers'
            f'<div class="mskv-bar" aria-hidden="true">{bars}</div></div>'
        )
