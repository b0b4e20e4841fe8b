"""The live panel's controls, one by one: what each is called, may be, and does."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from mspeckv.settings import RESIDENCIES, refuse

# The default target's; `Controls.set_model` puts the loaded model's in its place.
DEFAULT_LAYERS = 30
DEFAULT_POSITIONS = 8192

METHODS = (
    ("autoregressive", "autoregressive"),
    ("vanilla: tiers 0, 2", "vanilla"),
    ("triforce: 0, 1, 2", "triforce"),
    ("mspeckv: 0, 1, 2", "mspeckv"),
)
WIDTHS = (("int8", 8), ("int4", 4), ("int3", 3), ("int2", 2), ("float", "full"))
LINKS = (
    ("off: RAM speed", "off"),
    ("live: slow", "live"),
    ("origin: slowest", "origin"),
)
GUESSERS = (("the draft", "draft"), ("lookup in the text", "lookup"), ("nobody", "none"))
PLACES_OF_RESIDENTS = (("fixed layers", "static"), ("used last (LRU)", "lru"))
DEFAULTS: dict[str, Any] = {
    "method": "mspeckv",
    "bits": 8,
    "on_chip": 15,
    "resident": 0,
    "gamma": 8,
    "link": "live",
    "residency": "static",
    "tier0": "draft",
    "auto": False,
    "draft_gamma": 3,
    "budget": 256,
    "prefill": 1024,
    "new_tokens": 32,
    "temperature": 0.6,
    "top_p": 0.9,
    "seed": 1,
    "nibble": False,
    "codec": "kivi",
}
IN_SIGHT = ("method", "bits", "on_chip", "resident", "gamma")
_STYLE = {"description_width": "104px"}
_LAYOUT = {"width": "284px", "max_width": "100%"}


def build_inputs(codecs: tuple[str, ...]) -> dict[str, Any]:
    """Every control by name, in the order of `DEFAULTS`.

    Args:
        codecs: names to choose from.
    """
    assert tuple(value for _, value in PLACES_OF_RESIDENTS) == RESIDENCIES
    most = DEFAULT_LAYERS
    made = {
        "method": _dropdown(
            "method", "Method", METHODS, "Which tiers guess, which check. autoregressive: nobody "
            "guesses; vanilla: the draft guesses, the whole target checks; triforce: the target "
            "with few KV checks in between, KV are floats; mspeckv: the same, KV are packed",
        ),
        "bits": _dropdown("bits", "KV width", WIDTHS, "Width of stored KV of tier 2"),
        "on_chip": _slider(
            "on_chip", "On-chip", (0, most, 1),
            "Layers whose KV stays as floats on the device (in its memory, not in its caches)",
        ),
        "resident": _slider(
            "resident", "Resident", (0, most, 1),
            "Layers whose KV stays on the device quantized; no effect at width float",
        ),
        "gamma": _slider("gamma", "Gamma", (1, 16, 1), "Tokens proposed to tier 2 per round"),
        "link": _dropdown(
            "link", "Link", LINKS, "Speed of the path between host and device; live and origin are "
            "emulated: copies are held back until such a link would have brought them",
        ),
        "residency": _dropdown(
            "residency", "Residents are", PLACES_OF_RESIDENTS,
            "Who has the resident places: the same layers throughout, or those used last",
        ),
        "tier0": _dropdown(
            "tier0", "Tier 0", GUESSERS, "Who guesses first: the small draft, what followed "
            "the same words before, or nobody",
        ),
        "auto": _box(
            "auto", "Automatic lengths", "Gamma, draft gamma and the tiers in use follow measured "
            "cost and acceptance, round by round",
        ),
        "draft_gamma": _slider(
            "draft_gamma", "Draft gamma", (1, 8, 1), "Tokens tier 0 proposes to tier 1 at a time"
        ),
        "budget": _slider(
            "budget", "Budget", (64, 1024, 32), "Prompt tokens that tier 1 may look at"
        ),
        "prefill": _slider(
            "prefill", "Prompt tokens", (128, DEFAULT_POSITIONS - 256, 128),
            "Prompt tokens read before decoding (prefill)",
        ),
        "new_tokens": _slider("new_tokens", "New tokens", (8, 256, 8), "Tokens to generate"),
        "temperature": _rate(
            "temperature", "Temperature", (0.0, 1.5, 0.1), "0 is greedy: always the likeliest token"
        ),
        "top_p": _rate(
            "top_p", "Top-p", (0.1, 1.0, 0.05), "The fewest likeliest tokens with this much "
            "probability are drawn from",
        ),
        "seed": widgets.BoundedIntText(
            value=DEFAULTS["seed"], min=0, max=2**31 - 1, description="Seed",
            tooltip="Same seed and setting, same text", style=_STYLE, layout={"width": "200px"},
        ),
        "nibble": _box(
            "nibble", "Two int4 planes", "int8 as two planes: one is streamed, tier 1 could read "
            "the other",
        ),
        "codec": _dropdown(
            "codec", "Codec", codecs, "How a block of KV becomes bytes; kivi is the engine's own"
        ),
    }  # fmt: skip
    return {name: made[name] for name in DEFAULTS}


def _dropdown(name: str, words: str, options: Any, tip: str) -> Any:
    return widgets.Dropdown(
        options=options, value=DEFAULTS[name], description=words, tooltip=tip,
        description_allow_html=False, style=_STYLE, layout=_LAYOUT,
    )  # fmt: skip


def _slider(name: str, words: str, ends: tuple[int, int, int], tip: str) -> Any:
    low, high, step = ends
    return widgets.IntSlider(
        value=DEFAULTS[name], min=low, max=high, step=step, description=words, tooltip=tip,
        style=_STYLE, layout=_LAYOUT,
    )  # fmt: skip


def _rate(name: str, words: str, ends: tuple[float, float, float], tip: str) -> Any:
    low, high, step = ends
    return widgets.FloatSlider(
        value=DEFAULTS[name], min=low, max=high, step=step, description=words, tooltip=tip,
        readout_format=".2f", style=_STYLE, layout=_LAYOUT,
    )  # fmt: skip


def _box(name: str, words: str, tip: str) -> Any:
    return widgets.Checkbox(
        value=DEFAULTS[name], description=words, tooltip=tip, indent=True, style=_STYLE,
        layout=_LAYOUT,
    )  # fmt: skip


def put(control: Any, name: str, value: Any) -> None:
    """Put a value into a control, as a user would.

    Raises:
        ValueError: the control does not have it; traitlets' own error names no control.
    """
    if value is None and None not in getattr(control, "_options_values", ()):
        raise refuse(name, value, "use a value")
    try:
        control.value = value
    except Exception as error:
        told = " ".join(str(error).split())
        raise refuse(name, value, f"use what the control has ({told})") from error
