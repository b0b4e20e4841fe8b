"""What a what-if panel's controls ask for: the cost model's arguments, and a run of this size.

No widget in here; every speed is modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mspeckv import KVPolicy, Speculation
from mspeckv.settings import METHODS, check_count, default_width
from mspeckv_study.whatif import MODELS, Acceptance, Hardware, hardware, what_if
from mspeckv_study.whatif import Forecast as WhatIf
from mspeckv_study.whatif.acceptance import likely_acceptance
from mspeckv_study.whatif.catalogue import draft_shape
from mspeckv_study.whatif.origin import FIXED, SPECULATION, published_policy

Floats = NDArray[np.float64]
Values = Mapping[str, Any]

PUBLISHED: dict[str, Any] = {
    "model": "llama-2-7b",
    "machine": "origin",
    "link_gbps": 0.0,
    "method": "mspeckv",
    "prefill": 16384,
    "new_tokens": 256,
    "on_chip": 16,
    "resident": 16,
    "bits": 8,
    "nibble": False,
    "residency": "lru",
    "gamma": SPECULATION.gamma,
    "draft_gamma": SPECULATION.draft_gamma,
    "budget": SPECULATION.budget,
    "own_acceptance": False,
    "draft_middle": 0.2,
    "middle_full": 0.9,
    "draft_full": 0.2,
}
"""Every control's first value: the published tables' setting."""
AXES = {"A1": "prefill", "A2": "resident", "B1": "on_chip", "B2": "new_tokens"}
RATES = ("draft_middle", "middle_full", "draft_full")
CONTEXT_SCALE = 16
"""Published contexts over the classroom's; see `mspeckv_study.experiments.ablations`."""
TOKENS_SCALE = 4
_POINTS = 33


def published_setting(experiment: str) -> dict[str, Any]:
    """The published setting of an experiment."""
    return {**PUBLISHED, **FIXED[experiment]}


@cache
def machine_named(name: str) -> Hardware:
    """A machine; ``this`` is calibrated once."""
    return hardware(name)


def acceptance_of(values: Values, method: str, prefill: Any) -> Acceptance:
    """The controls' rates, or those that are likely for the pair at that context."""
    if values["own_acceptance"]:
        return Acceptance(*(values[name] for name in RATES))
    return _likely(
        values["model"], method, tuple(np.atleast_1d(prefill).tolist()), np.ndim(prefill)
    )


@lru_cache(256)
def _likely(model: str, method: str, prefill: tuple[int, ...], dimensions: int) -> Acceptance:
    """Kept, since a slider that moves asks for the same contexts again."""
    draft = draft_shape(MODELS[model], "default")
    where = np.array(prefill) if dimensions else prefill[0]
    return likely_acceptance(model, draft.name if draft else None, method, where)


def predict(values: Values, method: str, control: bool = True, **axis: Any) -> WhatIf:
    """What the cost model says of the controls' setting under ``method``.

    Args:
        values: by the names of `PUBLISHED`.
        method: in place of the values' own. ``mspeckv`` has the controls' width and residents;
            others hold floats, as the published ones did.
        control: see `what_if`.
        axis: fields to replace, numbers or arrays.

    Raises:
        ValueError: values that are not allowed or do not go together.
    """
    given = {**values, **axis}
    machine = machine_named(values["machine"])
    policy, speculation = _details(values, method)
    if method == "mspeckv":
        policy = replace(policy, bits=values["bits"], residency=values["residency"])
        policy = replace(policy, nibble=values["nibble"])
    nested = method == "mspeckv" and values["nibble"]
    return what_if(
        values["model"],
        machine,
        method=method,
        policy=policy,
        speculation=replace(speculation, tier1="nibble") if nested else speculation,
        acceptance=acceptance_of(values, method, given["prefill"]),
        link_gbps=values["link_gbps"] or None,
        control=control,
        prefill=given["prefill"],
        new_tokens=given["new_tokens"],
        on_chip=given["on_chip"],
        resident=given["resident"] if method == "mspeckv" else 0,
        gamma=values["gamma"],
        draft_gamma=values["draft_gamma"],
        budget=values["budget"],
    )


def _details(values: Values, method: str) -> tuple[KVPolicy, Speculation]:
    """What has no control: on the published machine its software's, elsewhere the defaults."""
    if values["machine"] == "origin":
        return published_policy(method), SPECULATION
    return KVPolicy(bits=default_width(method)), Speculation()


def predict_all(values: Values) -> dict[str, WhatIf]:
    """The controls' setting under every method, each with its equal-memory control.

    Raises:
        ValueError: values that are not allowed or do not go together.
    """
    check_layers(values)
    return {method: predict(values, method) for method in METHODS}


def check_layers(values: Values) -> None:
    """Refuse more places than the model has layers.

    Raises:
        ValueError: ``on_chip + resident`` is more than that.
    """
    policy = KVPolicy(on_chip=values["on_chip"], resident=values["resident"])
    policy.check_layers(MODELS[values["model"]].growing)


def places(experiment: str, values: Values) -> NDArray[Any]:
    """Where an experiment's axis is evaluated: its published range and beyond, whole numbers."""
    layers = MODELS[values["model"]].growing
    if experiment == "A2":
        return np.arange(layers - values["on_chip"] + 1)
    if experiment == "B1":
        return np.arange(layers + 1)
    low, high = (2048, 65536) if experiment == "A1" else (64, 2304)
    return np.linspace(low, high, _POINTS).round().astype(int)


def curves(experiment: str, values: Values) -> tuple[NDArray[Any], dict[str, Floats]]:
    """Tokens per second of every method along an experiment's axis, all else as the controls say.

    On B1's axis residents make room for on-chip layers.

    Raises:
        ValueError: values that are not allowed or do not go together.
    """
    where = places(experiment, values)
    axis: dict[str, Any] = {AXES[experiment]: where}
    if experiment == "B1":
        axis["resident"] = np.minimum(values["resident"], MODELS[values["model"]].growing - where)
    found = {
        method: np.asarray(predict(values, method, False, **axis).tokens_per_second, dtype=float)
        for method in METHODS
    }
    return where, {name: np.broadcast_to(speed, where.shape) for name, speed in found.items()}


def classroom(values: Values, layers: int, fit: Callable[[str, float], Any]) -> dict[str, Any]:
    """The setting at classroom size, for the live panel's controls.

    Contexts and budget are divided by `CONTEXT_SCALE`, new tokens by `TOKENS_SCALE`; layers keep
    their share of the model; the link is slowed until transfer and compute stand to each other as
    on the published machine.

    Args:
        values: by the names of `PUBLISHED`.
        layers: of the live panel's model.
        fit: puts a number within what a named control allows.
    """
    check_count("layers", layers, 1)
    share = layers / MODELS[values["model"]].growing
    on_chip = round(values["on_chip"] * share)
    method, packs = values["method"], values["method"] == "mspeckv"
    return {
        "method": method,
        "bits": values["bits"] if packs else default_width(method),
        "nibble": packs and values["nibble"],
        "residency": values["residency"] if packs else "static",
        "on_chip": on_chip,
        "resident": min(round(values["resident"] * share), layers - on_chip),
        "gamma": fit("gamma", values["gamma"]),
        "draft_gamma": fit("draft_gamma", values["draft_gamma"]),
        "budget": fit("budget", values["budget"] / CONTEXT_SCALE),
        "prefill": fit("prefill", values["prefill"] / CONTEXT_SCALE),
        "new_tokens": fit("new_tokens", values["new_tokens"] / TOKENS_SCALE),
        "auto": False,
        "tier0": "draft",
        "link": "origin",
    }


SHARED = (
    "method", "prefill", "new_tokens", "on_chip", "resident", "bits", "nibble", "residency",
    "gamma", "draft_gamma", "budget",
)  # fmt: skip
"""What the live panel's controls say as well."""


def at_full_size(live: Values, layers: int, model: str) -> dict[str, Any]:
    """A live panel's setting at a larger model's size: `classroom` the other way round.

    Args:
        live: values of the live panel's controls.
        layers: of the live panel's model.
        model: a name of `mspeckv_study.whatif.MODELS`, whose layers are shared out alike.

    Returns:
        Values by the names of `SHARED`.
    """
    check_count("layers", layers, 1)
    share = MODELS[model].growing / layers
    on_chip = round(live["on_chip"] * share)
    return {
        **{name: live[name] for name in SHARED},
        "on_chip": on_chip,
        "resident": min(round(live["resident"] * share), MODELS[model].growing - on_chip),
        "prefill": live["prefill"] * CONTEXT_SCALE,
        "budget": live["budget"] * CONTEXT_SCALE,
        "new_tokens": live["new_tokens"] * TOKENS_SCALE,
    }
