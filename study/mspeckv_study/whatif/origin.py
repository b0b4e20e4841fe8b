"""The published tables beside the cost model's account of them.

Fitted, on A1's autoregressive column: the link and the launches of `origin_machine`.
Taken from the tables: how many guesses each cell's rounds kept (acceptance is not the model's to
predict), and, for tier 0's guesses, what ``vanilla`` kept in A1 at the cell's context. Everything
else is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mspeckv.decoding.fits import USES_TIER1
from mspeckv.settings import RESIDENCIES, KVPolicy, Speculation, check_choice
from mspeckv_study.whatif.acceptance import PUBLISHED_GAMMA as GAMMA
from mspeckv_study.whatif.acceptance import PUBLISHED_PAIR, Floats, likely_acceptance, rate_of
from mspeckv_study.whatif.forecast import what_if
from mspeckv_study.whatif.machines import Hardware, origin_machine
from mspeckv_study.whatif.published_tables import TABLES, published

_AXES = {"A1": "prefill", "A2": "resident", "B1": "on_chip", "B2": "new_tokens"}
FIXED = {
    "A1": {"on_chip": 16, "resident": 16, "new_tokens": 256},
    "A2": {"prefill": 16384, "on_chip": 16, "new_tokens": 256},
    "B1": {"prefill": 16384, "resident": 16, "new_tokens": 256},
    "B2": {"prefill": 8192, "on_chip": 16, "resident": 16},
}
"""What each experiment holds fast, by the tables' own remarks."""
SPECULATION = Speculation(gamma=GAMMA, draft_gamma=1, budget=4096, refresh=0, sinks=16, window=240)
"""The published software's: tier 1's chunks are chosen once; tier 0 sees 256 tokens."""


@dataclass(frozen=True)
class PublishedCell:
    """One published throughput and the model's.

    Attributes:
        axis: what ``value`` is, in the table's word.
        published: tokens per second, the mean of three seeds.
        std: their standard deviation.
        accepted: published guesses kept per round; None for ``autoregressive``.
        predicted: tokens per second.
        fitted: whether the machine was fitted on this cell.
    """

    table: str
    axis: str
    value: int
    method: str
    published: float
    std: float | None
    accepted: float | None
    predicted: float
    fitted: bool

    @property
    def error(self) -> float:
        """Predicted over published, less one."""
        return self.predicted / self.published - 1

    @property
    def counts(self) -> bool:
        """Whether it is one of the cells that the model is judged by."""
        return self.method in USES_TIER1


def cells(machine: Hardware | None = None) -> tuple[PublishedCell, ...]:
    """Every published cell, in the tables' order, predicted on ``machine`` (default: fitted)."""
    out = []
    for name in TABLES:
        table = published(name)
        for method in table.methods:
            predicted = curve(name, method, table.values, machine=machine)
            for value, speed in zip(table.values, predicted, strict=True):
                found = table.speeds[value, method]
                kept = table.accepted.get((value, method))
                out.append(
                    PublishedCell(
                        name, table.axis, value, method, found.mean, found.std,
                        kept.mean if kept else None, float(speed), method == "autoregressive",
                    )
                )  # fmt: skip
    return tuple(out)


def curve(
    table: str,
    method: str,
    values: ArrayLike,
    *,
    residency: str = "lru",
    machine: Hardware | None = None,
) -> Floats:
    """Predicted tokens per second of one method along an experiment's axis.

    Args:
        table: ``A1``, ``A2``, ``B1`` or ``B2``.
        values: places on the axis; between published ones acceptance is interpolated.
        residency: ``lru`` as published, or ``static`` for what fixed places would have given.
        machine: default `origin_machine`.

    Raises:
        ValueError: an unknown experiment, method or residency, or a value that is not allowed.
    """
    check_choice("table", table, tuple(_AXES))
    check_choice("residency", residency, RESIDENCIES)
    where = np.asarray(values)
    given: dict[str, Any] = {**FIXED[table], _AXES[table]: where}
    # of 32 layers those on-chip leave fewer places to residents
    given["resident"] = np.minimum(given["resident"], 32 - np.asarray(given["on_chip"]))
    if method != "mspeckv":
        given["resident"] = 0
    acceptance = likely_acceptance(*PUBLISHED_PAIR, method, given["prefill"])
    if method in USES_TIER1:
        kept = published(table).kept(method, where)
        acceptance = replace(acceptance, middle_full=rate_of(kept, GAMMA))
    found = what_if(
        PUBLISHED_PAIR[0],
        machine or origin_machine(),
        method=method,
        policy=published_policy(method, residency),
        speculation=SPECULATION,
        acceptance=acceptance,
        control=False,
        **given,
    )
    return np.asarray(found.tokens_per_second, dtype=float)


def published_policy(method: str, residency: str = "lru") -> KVPolicy:
    """int8 with a K scale per 128 tokens and a V scale per head, no tail; else unquantized."""
    if method != "mspeckv":
        return KVPolicy(bits="full")
    return KVPolicy(bits=8, block=128, group=128, tail=0, residency=residency)


def errors(found: Sequence[PublishedCell]) -> Floats:
    """Absolute relative errors of the cells that count."""
    return np.array([abs(cell.error) for cell in found if cell.counts])
