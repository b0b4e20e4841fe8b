"""The settings that a plan chooses from, all of them predicted at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mspeckv.config import (
    METHODS,
    KVPolicy,
    Speculation,
    Width,
    check_choice,
    check_count,
    default_width,
    refuse,
)
from mspeckv.cost.acceptance import Acceptance
from mspeckv.cost.hardware import Hardware
from mspeckv.cost.model import WhatIf, what_if
from mspeckv.cost.shapes import ModelShape


@dataclass(frozen=True)
class Grid:
    """What is tried; every combination that is allowed.

    Attributes:
        methods: of decoding.
        bits: widths of tier 2's KV.
        resident_formats: of resident layers.
        budgets: prompt tokens in tier 1.
        gammas: guesses per round.
        draft_gammas: tier 0's guesses per inner round.
        places: every how many layers a count is tried; the ends always are.
    """

    methods: Sequence[str] = METHODS
    bits: Sequence[Width] = ("full", 8, 4, 2)
    resident_formats: Sequence[str] = ("packed", "float")
    budgets: Sequence[int] = (1024, 2048, 4096)
    gammas: Sequence[int] = (2, 4, 6, 8, 12, 16)
    draft_gammas: Sequence[int] = (1, 2, 3, 4)
    places: int = 1

    def __post_init__(self) -> None:
        for method in self.methods:
            check_choice("methods", method, METHODS)
        check_count("places", self.places, 1)
        for name in ("methods", "bits", "resident_formats", "budgets", "gammas", "draft_gammas"):
            if not getattr(self, name):
                raise refuse(name, getattr(self, name), "name at least one")


@dataclass(frozen=True)
class Choice:
    """One setting with its prediction; all modelled.

    Attributes:
        method, bits, on_chip, resident, resident_format, budget, gamma, draft_gamma: the setting.
        offloaded: layers on the host.
        prediction: of this setting alone.
    """

    method: str
    bits: Width
    on_chip: int
    resident: int
    offloaded: int
    resident_format: str
    budget: int
    gamma: int
    draft_gamma: int
    prediction: WhatIf

    @property
    def ms_per_token(self) -> float:
        """Predicted."""
        return float(self.prediction.ms_per_token)

    @property
    def device_bytes(self) -> int:
        """Predicted peak on the device."""
        return int(self.prediction.device_bytes)

    @property
    def policy(self) -> KVPolicy:
        """The setting's KV policy, for `mspeckv.generate`."""
        return KVPolicy(
            bits=self.bits,
            on_chip=self.on_chip,
            resident=self.resident,
            resident_format=self.resident_format,
        )

    @property
    def speculation(self) -> Speculation:
        """The setting's speculation."""
        return Speculation(gamma=self.gamma, draft_gamma=self.draft_gamma, budget=self.budget)


def budget_acceptance(rate: float, budget: Any, largest: int) -> NDArray[np.float64]:
    """Tier 1's acceptance with a smaller budget than ``rate`` was given for.

    On the default pair rejections fell from 0.175 to 0.13 to 0.09 when the budget doubled from 256
    to 512 to 1024: by a factor of 0.72 each time, which is taken over.
    """
    halvings = np.log2(largest / np.asarray(budget, dtype=float))
    return np.clip(1 - (1 - rate) * 0.72**-halvings, 0.0, 1.0)


@dataclass(frozen=True)
class Table:
    """Every setting of one method, one entry each."""

    method: str
    columns: Mapping[str, NDArray[Any]]
    ms: NDArray[np.float64]
    bytes: NDArray[np.int64]
    asked: Mapping[str, Any]

    def fastest(self, room: int) -> int | None:
        """Of those that fit, the place of the fastest; of equals the one with fewest bytes."""
        fitting = np.flatnonzero(self.bytes <= room)
        if not len(fitting):
            return None
        return int(fitting[np.lexsort((self.bytes[fitting], self.ms[fitting]))[0]])

    def choice(self, place: int) -> Choice:
        """One entry, predicted by itself."""
        row = {name: _plain(column[place]) for name, column in self.columns.items()}
        rate = row.pop("middle_full")
        given: Acceptance = self.asked["acceptance"]
        prediction = what_if(
            self.asked["model"],
            self.asked["machine"],
            method=self.method,
            acceptance=Acceptance(given.draft_middle, rate, given.draft_full),
            **self.asked["common"],
            **row,
        )
        fixed = 0 if row["bits"] == "full" else row["resident"]
        layers = self.asked["model"].layers
        return Choice(
            self.method,
            prediction=prediction,
            offloaded=layers - row["on_chip"] - fixed,
            **row,
        )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def predict_all(
    method: str,
    shape: ModelShape,
    where: Hardware,
    grid: Grid,
    widths: Sequence[Width],
    acceptance: Acceptance,
    common: Mapping[str, Any],
) -> Table:
    """All combinations for one method, predicted at once."""
    axes: dict[str, Sequence[Any]] = {
        "bits": possible_widths(method, widths),
        "place": _placements(shape.layers, grid.places),
        "resident_format": grid.resident_formats,
        "budget": grid.budgets if method in ("triforce", "mspeckv") else grid.budgets[:1],
        "gamma": grid.gammas if method != "autoregressive" else grid.gammas[:1],
        "draft_gamma": grid.draft_gammas if method in ("triforce", "mspeckv") else [1],
    }
    columns: dict[str, Any] = _combine(axes)
    rate = np.broadcast_to(
        budget_acceptance(
            float(np.asarray(acceptance.middle_full)), columns["budget"], max(grid.budgets)
        ),
        columns["budget"].shape,
    )
    asked = {"model": shape, "machine": where, "acceptance": acceptance, "common": common}
    found = what_if(
        shape,
        where,
        method=method,
        acceptance=Acceptance(acceptance.draft_middle, rate, acceptance.draft_full),
        control=False,
        **common,
        **columns,
    )
    columns["middle_full"] = rate
    return Table(method, columns, found.ms_per_token, found.device_bytes, asked)


def possible_widths(method: str, widths: Sequence[Width]) -> list[Width]:
    """Those that a method can have: ``triforce`` is unquantized."""
    return [width for width in widths if method != "triforce" or width == default_width(method)]


def _placements(layers: int, step: int) -> list[tuple[int, int]]:
    """Layers on-chip and resident."""
    counts = sorted({*range(0, layers + 1, step), layers})
    return [(chip, kept) for chip in counts for kept in counts if chip + kept <= layers]


def _combine(axes: Mapping[str, Sequence[Any]]) -> dict[str, NDArray[Any]]:
    """The product of the axes, without settings that differ in nothing that has an effect."""
    sizes = [len(values) for values in axes.values()]
    places = np.indices(sizes).reshape(len(sizes), -1)
    columns: dict[str, NDArray[Any]] = {}
    for (name, values), at in zip(axes.items(), places, strict=True):
        if name == "place":
            pairs = np.array(values)[at]
            columns["on_chip"], columns["resident"] = pairs[:, 0], pairs[:, 1]
            continue
        words = any(isinstance(value, str) for value in values)
        columns[name] = np.array(list(values), dtype=object if words else None)[at]
    lossless = columns["bits"] == "full"
    formats = columns["resident_format"]
    # an unquantized layer has no resident place; without residents the format is idle
    idle = (lossless | (columns["resident"] == 0)) & (formats != formats[0])
    keep = ~idle & ~(lossless & (columns["resident"] > 0))
    return {name: column[keep] for name, column in columns.items()}
