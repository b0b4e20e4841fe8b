"""Which setting is fastest on a machine, if it has to fit: an exhaustive search of the cost model.

Every setting of a small grid is predicted by `what_if`, all of a method at once; of those that fit
the device, and whose width promises enough acceptance, the one with the least time per token is
chosen. Nothing is pruned, so the choice is optimal over the grid, under the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mspeckv.decoding.fits import USES_TIER1
from mspeckv.settings import (
    METHODS,
    KVPolicy,
    Speculation,
    Width,
    check_choice,
    check_count,
    check_number,
    default_width,
    refuse,
)
from mspeckv.whatif.acceptance import Acceptance, likely_acceptance
from mspeckv.whatif.forecast import Forecast, hardware, what_if
from mspeckv.whatif.machines import Hardware
from mspeckv.whatif.question import plain
from mspeckv.whatif.shapes import ModelShape, draft_shape, model_shape

WIDTH_ACCEPTANCE: Mapping[Width, float] = {"full": 1.0, 8: 0.997, 4: 0.95, 2: 0.69}
"""What of the unquantized model's tokens a tier 2 of each width keeps: sum min(p, q), measured on
the default pair, 4 to 8 k of the Python reference. The measure of quality that `plan` bounds."""


@dataclass(frozen=True)
class Grid:
    """What is tried; every combination that is allowed.

    Attributes:
        methods: of decoding.
        bits: widths of tier 2's KV.
        budgets: prompt tokens in tier 1.
        gammas: guesses per round.
        draft_gammas: tier 0's guesses per inner round.
        places: every how many layers a count is tried; the ends always are.
    """

    methods: Sequence[str] = METHODS
    bits: Sequence[Width] = ("full", 8, 4, 2)
    budgets: Sequence[int] = (1024, 2048, 4096)
    gammas: Sequence[int] = (2, 4, 6, 8, 12, 16)
    draft_gammas: Sequence[int] = (1, 2, 3, 4)
    places: int = 1

    def __post_init__(self) -> None:
        for method in self.methods:
            check_choice("methods", method, METHODS)
        check_count("places", self.places, 1)
        for name in ("methods", "bits", "budgets", "gammas", "draft_gammas"):
            if not getattr(self, name):
                raise refuse(name, getattr(self, name), "name at least one")


@dataclass(frozen=True)
class Choice:
    """One setting with its prediction; all modelled.

    Attributes:
        method, bits, on_chip, resident, budget, gamma, draft_gamma: the setting.
        offloaded: layers on the host.
        prediction: of this setting alone.
    """

    method: str
    bits: Width
    on_chip: int
    resident: int
    offloaded: int
    budget: int
    gamma: int
    draft_gamma: int
    prediction: Forecast

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
        return KVPolicy(bits=self.bits, on_chip=self.on_chip, resident=self.resident)

    @property
    def speculation(self) -> Speculation:
        """The setting's speculation."""
        return Speculation(gamma=self.gamma, draft_gamma=self.draft_gamma, budget=self.budget)


@dataclass(frozen=True)
class DevicePlan:
    """What `plan` found.

    Attributes:
        model, hardware: what was asked.
        prefill, new_tokens: tokens.
        device_bytes: what the device has.
        link_gbps: what the link carries.
        tried: settings predicted; fitting: of them, those that fit.
        choice: the fastest setting that fits.
        best: the fastest that fits of every method.
        front: no setting of these is beaten in both device bytes and time, fewest bytes first;
            those that do not fit are left out.
    """

    model: str
    hardware: str
    prefill: int
    new_tokens: int
    device_bytes: int
    link_gbps: float
    tried: int
    fitting: int
    choice: Choice
    best: Mapping[str, Choice]
    front: tuple[Choice, ...]


def plan(
    model: str | ModelShape = "llama-2-7b",
    machine: str | Hardware = "h100",
    *,
    draft: str | ModelShape | None = "default",
    prefill: int = 32768,
    new_tokens: int = 256,
    gpu_gb: float | None = None,
    link_gbps: float | None = None,
    min_acceptance: float = 0.9,
    acceptance: Acceptance | None = None,
    width_acceptance: Mapping[Width, float] | None = None,
    graphs: bool = True,
    grid: Grid | None = None,
) -> DevicePlan:
    """Choose placement, width, budget and lengths that minimise predicted time per token.

    Args:
        model: as in `what_if`.
        machine: as in `what_if`; its memory and link may be replaced:
        gpu_gb: device memory in 1e9 bytes.
        link_gbps: link bandwidth in 1e9 bytes per second.
        min_acceptance: the least of ``width_acceptance`` that a width must have: the bound on
            quality, since what every method emits is what its tier 2 would.
        acceptance: of guesses, scalars, default `likely_acceptance`; tier 1's at the largest
            budget tried (a smaller one is taken to lose what it did on the default pair: see
            `budget_acceptance`).
        width_acceptance: default `WIDTH_ACCEPTANCE`.
        graphs: as in `what_if`.
        grid: default `Grid()`.

    Raises:
        ValueError: a value that is not allowed; nothing fits, with what would be needed.
    """
    shape, where = model_shape(model), hardware(machine)
    check_count("prefill", prefill, 2)
    check_count("new_tokens", new_tokens, 1)
    check_number("min_acceptance", min_acceptance, 0.0, 1.0)
    for name, value in (("gpu_gb", gpu_gb), ("link_gbps", link_gbps)):
        if value is not None:
            check_number(name, value, 0.0, 1e6, open_low=True)
    room = int((gpu_gb if gpu_gb is not None else where.memory_gb) * 1e9)
    quality = WIDTH_ACCEPTANCE if width_acceptance is None else width_acceptance
    grid = grid or Grid()
    allowed = [width for width in grid.bits if quality.get(width, 0.0) >= min_acceptance]
    if not allowed:
        raise refuse(
            "min_acceptance", min_acceptance, f"no width of {list(grid.bits)} keeps so many tokens"
        )
    guesser = draft_shape(shape, draft)
    tables = []
    for method in grid.methods:
        if _possible(method, allowed) and (guesser is not None or method != "vanilla"):
            likely = acceptance or likely_acceptance(
                shape.name, guesser.name if guesser else None, method, prefill
            )
            asked = {
                "model": shape, "machine": where, "draft": draft, "method": method,
                "prefill": prefill, "new_tokens": new_tokens, "link_gbps": link_gbps,
                "graphs": graphs,
            }  # fmt: skip
            tables.append(_predict_all(asked, likely, grid, allowed))
    if not tables:
        raise refuse("methods", grid.methods, "none of them is possible with these widths")
    places = {table.asked["method"]: (table, table.fastest(room)) for table in tables}
    best = {name: t.choice(place) for name, (t, place) in places.items() if place is not None}
    if not best:
        least = min(float(table.bytes.min()) for table in tables)
        raise refuse(
            "gpu_gb", f"{room / 1e9:.3g} GB", f"the smallest setting needs {least / 1e9:.3g} GB"
        )
    return DevicePlan(
        model=shape.name,
        hardware=where.name,
        prefill=prefill,
        new_tokens=new_tokens,
        device_bytes=room,
        link_gbps=where.link_gbps if link_gbps is None else link_gbps,
        tried=sum(table.ms.size for table in tables),
        fitting=sum(int((table.bytes <= room).sum()) for table in tables),
        choice=min(best.values(), key=lambda one: one.ms_per_token),
        best=best,
        front=_front(tables, room),
    )


def budget_acceptance(rate: float, budget: Any, largest: int) -> NDArray[np.float64]:
    """Tier 1's acceptance with a smaller budget than ``rate`` was given for.

    On the default pair rejections fell from 0.175 to 0.13 to 0.09 when the budget doubled from 256
    to 512 to 1024: by a factor of 0.72 each time, which is taken over.
    """
    halvings = np.log2(largest / np.asarray(budget, dtype=float))
    return np.clip(1 - (1 - rate) * 0.72**-halvings, 0.0, 1.0)


@dataclass(frozen=True)
class _Predictions:
    """Every setting of one method, one entry each.

    Attributes:
        asked: of `what_if`, what all have in common.
        acceptance: at the largest budget.
        columns: the settings, by field of `Choice`.
        rate: tier 1's acceptance, which falls with the budget.
        ms: per token.
        bytes: peak on the device.
    """

    asked: Mapping[str, Any]
    acceptance: Acceptance
    columns: Mapping[str, NDArray[Any]]
    rate: NDArray[np.float64]
    ms: NDArray[np.float64]
    bytes: NDArray[np.int64]

    def fastest(self, room: int) -> int | None:
        """Of those that fit, the place of the fastest; of equals the one with fewest bytes."""
        fitting = np.flatnonzero(self.bytes <= room)
        if not len(fitting):
            return None
        return int(fitting[np.lexsort((self.bytes[fitting], self.ms[fitting]))[0]])

    def choice(self, place: int) -> Choice:
        """One entry, predicted by itself."""
        row = {name: plain(column[place]) for name, column in self.columns.items()}
        acceptance = replace(self.acceptance, middle_full=float(self.rate[place]))
        found = what_if(**self.asked, acceptance=acceptance, **row)
        fixed = 0 if row["bits"] == "full" else row["resident"]
        offloaded = self.asked["model"].layers - row["on_chip"] - fixed
        return Choice(self.asked["method"], prediction=found, offloaded=offloaded, **row)


def _predict_all(
    asked: Mapping[str, Any], acceptance: Acceptance, grid: Grid, widths: Sequence[Width]
) -> _Predictions:
    """All combinations for one method, predicted at once."""
    method = asked["method"]
    nested = method in USES_TIER1
    columns: dict[str, Any] = _combine(
        {
            "bits": _possible(method, widths),
            "place": _placements(asked["model"].layers, grid.places),
            "budget": grid.budgets if nested else grid.budgets[:1],
            "gamma": grid.gammas if method != "autoregressive" else grid.gammas[:1],
            "draft_gamma": grid.draft_gammas if nested else [1],
        }
    )
    middle = float(np.asarray(acceptance.middle_full))
    rate = budget_acceptance(middle, columns["budget"], max(grid.budgets))
    rates = replace(acceptance, middle_full=rate)
    found = what_if(**asked, acceptance=rates, control=False, **columns)
    return _Predictions(asked, acceptance, columns, rate, found.ms_per_token, found.device_bytes)


def _possible(method: str, widths: Sequence[Width]) -> list[Width]:
    """Widths that a method can have: ``triforce`` is unquantized."""
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
    # an unquantized layer has no resident place
    keep = ~(lossless & (columns["resident"] > 0))
    return {name: column[keep] for name, column in columns.items()}


def _front(tables: Sequence[_Predictions], room: int) -> tuple[Choice, ...]:
    """Settings that nothing smaller beats, fewest bytes first."""
    ms = np.concatenate([table.ms for table in tables])
    size = np.concatenate([table.bytes for table in tables])
    owner = np.concatenate([np.full(len(t.ms), i) for i, t in enumerate(tables)])
    place = np.concatenate([np.arange(len(table.ms)) for table in tables])
    order = np.lexsort((ms, size))
    order = order[size[order] <= room]
    least = np.minimum.accumulate(ms[order])
    first = np.r_[True, least[1:] < least[:-1]] if len(order) else np.zeros(0, dtype=bool)
    return tuple(tables[owner[at]].choice(int(place[at])) for at in order[first])
