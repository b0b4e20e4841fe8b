"""Which setting is fastest on a machine, if it has to fit: an exhaustive search of the cost model.

Every setting of a small grid is predicted by `what_if`, all of a method at once; of those that fit
the device, and whose width promises enough acceptance, the one with the least time per token is
chosen. Nothing is pruned, so the choice is optimal over the grid, under the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
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
    check_kind,
    check_number,
    refuse,
)
from mspeckv_study.whatif.acceptance import Acceptance, likely_acceptance
from mspeckv_study.whatif.catalogue import draft_shape
from mspeckv_study.whatif.forecast import Forecast, hardware, shape_on, what_if
from mspeckv_study.whatif.machines import Hardware
from mspeckv_study.whatif.shapes import ModelShape

WIDTH_ACCEPTANCE: Mapping[Width, float] = {"full": 1.0, 8: 0.997, 4: 0.94, 3: 0.81, 2: 0.43}
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


_SETTING = ("bits", "on_chip", "resident", "budget", "gamma", "draft_gamma")
"""Fields of `Choice` that `what_if` takes, in the order of `_settings`."""


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
    weights: str | None = None,
    grid: Grid | None = None,
) -> DevicePlan:
    """Choose placement, width, budget and lengths that minimise predicted time per token.

    Args:
        model: as in `what_if`, and so ``draft``, ``graphs`` and ``weights``.
        machine: as in `what_if`; its memory and link may be replaced:
        gpu_gb: device memory in 1e9 bytes.
        link_gbps: link bandwidth in 1e9 bytes per second.
        min_acceptance: the least of ``width_acceptance`` that a width must have: the bound on
            quality, since what every method emits is what its tier 2 would.
        acceptance: of guesses, scalars, default `likely_acceptance`; tier 1's at the largest
            budget tried (a smaller one is taken to lose what it did on the default pair: see
            `budget_acceptance`).
        width_acceptance: default `WIDTH_ACCEPTANCE`.

    Raises:
        ValueError: a value that is not allowed; nothing fits, with what would be needed.
    """
    where = hardware(machine)
    shape = shape_on(where, model, weights)
    check_count("prefill", prefill, 2, 10**9)
    check_count("new_tokens", new_tokens, 1, 10**9)
    check_number("min_acceptance", min_acceptance, 0.0, 1.0)
    check_kind("acceptance", acceptance, Acceptance | None, "an Acceptance")
    check_kind("width_acceptance", width_acceptance, Mapping | None, "a number for each width")
    check_kind("grid", grid, Grid | None, "a Grid")
    for name, value in (("gpu_gb", gpu_gb), ("link_gbps", link_gbps)):
        if value is not None:
            check_number(name, value, 0.0, 1e6, open_low=True)
    room = int((gpu_gb if gpu_gb is not None else where.memory_gb) * 1e9)
    quality = WIDTH_ACCEPTANCE if width_acceptance is None else width_acceptance
    grid = grid or Grid()
    allowed = [width for width in grid.bits if quality.get(width, 0.0) >= min_acceptance]
    if not allowed:
        widths = f"no width of {list(grid.bits)} keeps so many tokens"
        raise refuse("min_acceptance", min_acceptance, widths)
    guesser = draft_shape(shape, draft)
    by = guesser.name if guesser else None
    known = {
        method: acceptance or likely_acceptance(shape.name, by, method, prefill)
        for method in grid.methods
        if guesser is not None or method != "vanilla"
    }

    def predict(method: str, setting: Mapping[str, Any], control: bool) -> Forecast:
        likely = known[method]
        middle = float(np.asarray(likely.middle_full))
        rate = budget_acceptance(middle, setting["budget"], max(grid.budgets))
        return what_if(
            shape, where, draft=draft, method=method, prefill=prefill, new_tokens=new_tokens,
            acceptance=replace(likely, middle_full=rate), link_gbps=link_gbps, graphs=graphs,
            control=control, **setting,
        )  # fmt: skip

    def choice(place: int) -> Choice:
        method, setting = methods[owner[place]], dict(zip(_SETTING, settings[place], strict=True))
        held = setting["on_chip"] + (setting["resident"] if setting["bits"] != "full" else 0)
        found = predict(method, setting, True)
        return Choice(method, offloaded=shape.growing - held, prediction=found, **setting)

    rows = {method: _settings(method, shape.growing, grid, allowed) for method in known}
    methods = [method for method in known if rows[method]]
    if not methods:
        raise refuse("methods", grid.methods, "none of them is possible with these widths")
    found = [predict(method, _columns(rows[method]), False) for method in methods]
    settings = [row for method in methods for row in rows[method]]
    owner = np.repeat(np.arange(len(methods)), [len(rows[method]) for method in methods])
    ms = np.concatenate([one.ms_per_token for one in found])
    size = np.concatenate([one.device_bytes for one in found])
    # those that fit: fastest first, of equals the one with fewest bytes
    order = np.lexsort((size, ms))
    order = order[size[order] <= room]
    if not len(order):
        least = f"the smallest setting needs {float(size.min()) / 1e9:.3g} GB"
        raise refuse("gpu_gb", f"{room / 1e9:.3g} GB", least)
    fitting = {method: order[owner[order] == place] for place, method in enumerate(methods)}
    best = {method: choice(int(mine[0])) for method, mine in fitting.items() if len(mine)}
    return DevicePlan(
        model=shape.name,
        hardware=where.name,
        prefill=prefill,
        new_tokens=new_tokens,
        device_bytes=room,
        link_gbps=where.link_gbps if link_gbps is None else link_gbps,
        tried=len(settings),
        fitting=len(order),
        choice=min(best.values(), key=lambda one: one.ms_per_token),
        best=best,
        front=tuple(choice(place) for place in _front(ms, size, order)),
    )


def budget_acceptance(rate: float, budget: Any, largest: int) -> NDArray[np.float64]:
    """Tier 1's acceptance with a smaller budget than ``rate`` was given for.

    On the default pair rejections fell from 0.175 to 0.13 to 0.09 when the budget doubled from 256
    to 512 to 1024: by a factor of 0.72 each time, which is taken over.
    """
    halvings = np.log2(largest / np.asarray(budget, dtype=float))
    return np.clip(1 - (1 - rate) * 0.72**-halvings, 0.0, 1.0)


def _settings(
    method: str, layers: int, grid: Grid, widths: Sequence[Width]
) -> list[tuple[Any, ...]]:
    """Every combination for one method, but those that differ in nothing that has an effect."""
    counts = sorted({*range(0, layers + 1, grid.places), layers})
    places = [(chip, kept) for chip in counts for kept in counts if chip + kept <= layers]
    guesses, nested = method != "autoregressive", method in USES_TIER1
    return [
        (width, *place, *lengths)
        for width in widths
        # triforce is unquantized
        if method != "triforce" or width == "full"
        for place in places
        # an unquantized layer has no resident place
        if width != "full" or not place[1]
        for lengths in product(
            grid.budgets if nested else grid.budgets[:1],
            grid.gammas if guesses else grid.gammas[:1],
            grid.draft_gammas if nested else [1],
        )
    ]


def _columns(rows: Sequence[tuple[Any, ...]]) -> dict[str, NDArray[Any]]:
    """Settings as `what_if` takes them: an array by field."""
    columns = dict(zip(_SETTING, np.array(rows, dtype=object).T, strict=True))
    return {name: one if name == "bits" else one.astype(int) for name, one in columns.items()}


def _front(ms: Any, size: Any, fitting: Any) -> list[int]:
    """Of the places ``fitting``, those that nothing smaller is as fast as, fewest bytes first."""
    order = fitting[np.lexsort((ms[fitting], size[fitting]))]
    least = np.minimum.accumulate(ms[order])
    return [int(place) for place in order[np.r_[True, least[1:] < least[:-1]]]]
