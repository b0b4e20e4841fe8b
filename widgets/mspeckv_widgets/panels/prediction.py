"""What the cost model says of the panel's setting, while a slider moves. No widget in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mspeckv.kv.link import LIVE_GBPS, origin_gbps
from mspeckv.settings import RESIDENCIES, refuse
from mspeckv_study.experiments import experiment
from mspeckv_study.whatif import Acceptance, Forecast, Hardware, ModelShape, published, what_if
from mspeckv_study.whatif.origin import curve
from mspeckv_widgets.record import Setting

Floats = NDArray[np.float64]
_TIERS = {0: ("tier 0 draft",), 1: ("tier 1 verify",), 2: ("tier 2 compute", "tier 2 unpack")}
_ORIGIN_AT = 1024
"""Tokens of context at which the ``origin`` link is scaled."""


@dataclass(frozen=True)
class Predicted:
    """A setting's figures per settled token; modelled throughout.

    Attributes:
        link_bytes: over the link, to the device.
        ms: in all.
        device_bytes: KV on the device, at the run's end.
        tiers: milliseconds of compute by tier.
        wait: milliseconds that compute stands still for the link.
        rest: milliseconds of drawing and choosing.
        kept: by guessing tier, percent of its tokens kept by the tier above: the usual rates of
            the default pair; empty where tier 0 is not the draft.
    """

    link_bytes: float
    ms: float
    device_bytes: float
    tiers: Mapping[int, float]
    wait: float
    rest: float
    kept: Mapping[int, float]


@dataclass(frozen=True)
class Curve:
    """Milliseconds per token along an experiment's axis.

    Attributes:
        x: places on the axis.
        lines: modelled, by name.
        points: published, as place, milliseconds and their standard deviation, by name.
        places: values that a click runs.
        reference: the published method that ``mspeckv`` was compared with; empty for a curve here.
    """

    x: NDArray[Any]
    lines: Mapping[str, Floats]
    points: Mapping[str, tuple[tuple[float, float, float], ...]]
    places: tuple[int, ...]
    reference: str = ""


class Model:
    """The cost model of one pair on one machine.

    Args:
        shape: the target's.
        machine: see `mspeckv_study.whatif.this_machine`.
        origin: bandwidth of the ``origin`` link in 1e9 bytes/s, where it has been measured.
    """

    def __init__(self, shape: ModelShape, machine: Hardware, origin: float | None = None) -> None:
        self.shape, self.machine, self.origin = shape, machine, origin

    @property
    def measured(self) -> bool:
        """Whether the machine is this one, calibrated."""
        return bool(self.machine.passes)

    def gbps(self, setting: Setting) -> float:
        """Bandwidth of a setting's link in 1e9 bytes/s."""
        link = setting.config.link
        if link.preset == "live":
            return LIVE_GBPS
        if link.preset == "origin":
            return self.origin or self._scaled()
        return link.gbps or self.machine.link_gbps

    def _scaled(self) -> float:
        """What ``origin`` comes to by the calibrated time of a step."""
        kv, layers = self.shape.kv(self.machine.torch_dtype), self.shape.growing
        if self.measured:
            step = float(self.machine.passes["target"].at(1, _ORIGIN_AT)) / 1e3
        else:
            size = self.shape.own_bytes(self.machine.torch_dtype)
            step = size / self.machine.memory_gbps / 1e9
        return origin_gbps(step, layers, kv.token_bytes)

    def of(self, setting: Setting) -> Predicted:
        """One setting's figures.

        Raises:
            ValueError: the setting is not allowed, or its lengths are left to be chosen.
        """
        found = self._ask(setting)
        steps, rates = found.steps, Acceptance()
        tiers = {tier: sum(steps[name] for name in names) for tier, names in _TIERS.items()}
        wait = steps["tier 2 wait"]
        # the rates are the draft's, and tier 1's when it judges the draft
        kept: dict[int, float] = {}
        if setting.config.speculation.tier0 != "draft":
            pass
        elif setting.config.method == "vanilla":
            kept = {0: 100 * float(np.asarray(rates.draft_full))}
        elif setting.config.method != "autoregressive":
            kept = {
                0: 100 * float(np.asarray(rates.draft_middle)),
                1: 100 * float(np.asarray(rates.middle_full)),
            }
        return Predicted(
            link_bytes=found.link_bytes_per_token,
            ms=found.ms_per_token,
            device_bytes=found.memory.kv_device,
            tiers=tiers,
            wait=wait,
            rest=found.ms_per_token - sum(tiers.values()) - wait,
            kept=kept,
        )

    def _ask(self, setting: Setting, method: str = "", **axis: Any) -> Forecast:
        config = setting.config
        if config.speculation.adaptive and config.method != "autoregressive":
            raise refuse("lengths", "automatic", "the model needs numbers for gamma")
        given = {"prefill": setting.prefill, "new_tokens": config.new_tokens, **axis}
        return what_if(
            self.shape,
            self.machine,
            method=method or config.method,
            policy=config.policy,
            speculation=config.speculation,
            link_gbps=self.gbps(setting),
            control=False,
            **given,
        )

    def here(self, name: str, setting: Setting) -> Curve:
        """A preset's axis on this machine, all else as in ``setting``, with plain decoding.

        Plain decoding has the same policy: the control with truly the same KV.
        """
        known, config = experiment(name), setting.config
        where = self._places(name, config.policy.on_chip)
        axis: dict[str, Any] = {known.axis: where}
        if name == "B1":
            axis["resident"] = np.minimum(config.policy.resident, self.shape.growing - where)
        lines = {}
        for residency in RESIDENCIES:
            policy = replace(config.policy, residency=residency)
            one = replace(setting, config=replace(config, policy=policy))
            lines[residency] = np.asarray(self._ask(one, **axis).ms_per_token, dtype=float)
        plain = self._ask(setting, "autoregressive", **axis)
        lines["plain"] = np.asarray(plain.ms_per_token, dtype=float)
        values = tuple(one for one in known.values if one <= where.max())
        return Curve(where, lines, {}, values)

    def _places(self, name: str, on_chip: int) -> NDArray[Any]:
        if name == "A2":
            return np.arange(self.shape.growing - on_chip + 1)
        if name == "B1":
            return np.arange(self.shape.growing + 1)
        values = experiment(name).values
        return np.linspace(values[0] / 2, values[-1] * 1.25, 33).round().astype(int)


def as_published(name: str) -> Curve:
    """A preset's axis on the published machine: the model's curves and the published points."""
    table = published(name)
    values = np.array(table.values)
    where: NDArray[Any]
    if name in ("A2", "B1"):
        where = np.arange(17 if name == "A2" else 33)
    else:
        where = np.linspace(values[0] / 2, values[-1] * 1.25, 33).round().astype(int)
    lines = {
        residency: 1e3 / curve(name, "mspeckv", where, residency=residency)
        for residency in RESIDENCIES
    }
    reference = table.methods[0]
    lines["reference"] = 1e3 / curve(name, reference, where)
    points = {}
    for method, line in (("mspeckv", "lru"), (reference, "reference")):
        found = [(value, table.speeds[value, method]) for value in table.values]
        points[line] = tuple(
            (float(value), 1e3 / one.mean, 1e3 * (one.std or 0.0) / one.mean**2)
            for value, one in found
        )
    return Curve(where, lines, points, tuple(int(value) for value in table.values), reference)
