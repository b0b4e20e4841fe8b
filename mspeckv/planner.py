"""Which setting is fastest on a machine, if it has to fit: an exhaustive search of the cost model.

Every setting of a small grid is predicted by `mspeckv.cost`; of those that fit the device, and
whose width promises enough acceptance, the one with the least time per token is chosen. Nothing is
pruned, so the choice is optimal over the grid, under the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mspeckv.config import Width, check_count, check_number, refuse
from mspeckv.cost.acceptance import Acceptance, likely_acceptance
from mspeckv.cost.hardware import Hardware, hardware
from mspeckv.cost.search import (
    Choice,
    Grid,
    Table,
    budget_acceptance,
    possible_widths,
    predict_all,
)
from mspeckv.cost.shapes import ModelShape, draft_shape, model_shape

__all__ = ["WIDTH_ACCEPTANCE", "Choice", "DevicePlan", "Grid", "budget_acceptance", "plan"]

WIDTH_ACCEPTANCE: Mapping[Width, float] = {"full": 1.0, 8: 0.997, 4: 0.95, 2: 0.69}
"""What of the unquantized model's tokens a tier 2 of each width keeps: sum min(p, q), measured on
the default pair, 4 to 8 k of the Python reference. The measure of quality that `plan` bounds."""


@dataclass(frozen=True)
class DevicePlan:
    """What `plan` found.

    Attributes:
        model, hardware: what was asked.
        prefill, new_tokens: tokens.
        device_bytes: what the device has.
        link_gbps: what the link carries.
        choice: the fastest setting that fits.
        best: the fastest that fits of every method.
        front: no setting of these is beaten in both device bytes and time, fewest bytes first;
            those that do not fit are left out.
        tried: settings predicted; fitting: of them, those that fit.
    """

    model: str
    hardware: str
    prefill: int
    new_tokens: int
    device_bytes: int
    link_gbps: float
    choice: Choice
    best: Mapping[str, Choice]
    front: tuple[Choice, ...]
    tried: int
    fitting: int


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
    common: dict[str, Any] = {
        "draft": draft,
        "prefill": prefill,
        "new_tokens": new_tokens,
        "link_gbps": link_gbps,
        "graphs": graphs,
    }
    guesser = draft_shape(shape, draft)
    draft_name = guesser.name if guesser else None
    tables = [
        predict_all(
            method, shape, where, grid, allowed,
            acceptance or likely_acceptance(shape.name, draft_name, method, prefill), common,
        )
        for method in grid.methods
        if (guesser is not None or method != "vanilla") and possible_widths(method, allowed)
    ]  # fmt: skip
    best: dict[str, Choice] = {}
    for table in tables:
        fastest = table.fastest(room)
        if fastest is not None:
            best[table.method] = table.choice(fastest)
    if not tables:
        raise refuse("methods", grid.methods, "none of them is possible with these widths")
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
        choice=min(best.values(), key=lambda one: one.ms_per_token),
        best=best,
        front=_front(tables, room),
        tried=sum(table.ms.size for table in tables),
        fitting=sum(int((table.bytes <= room).sum()) for table in tables),
    )


def _front(tables: Sequence[Table], room: int) -> tuple[Choice, ...]:
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
