"""Where speed jumps along an axis of layers, and whether that is a cliff."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import log

from mspeckv.experiments.statistics import Table

CLIFF_RISE = 1.5
"""A step between neighbours counts as a cliff when speed rises by this factor at least ..."""
CLIFF_LEAD = 2.0
"""... and its rise per layer (of the logarithm) is this many times that of any other step."""


def cliff(speeds: Mapping[int, float]) -> tuple[int, int, float] | None:
    """The two neighbouring values between which speed jumps, and by what factor.

    None where no step stands out: see `CLIFF_RISE` and `CLIFF_LEAD`.
    """
    places = sorted(speeds)
    steps = [
        (log(speeds[high] / speeds[low]) / (high - low), low, high)
        for low, high in pairwise(places)
    ]
    if not steps:
        return None
    steepest, low, high = max(steps)
    others = [rise for rise, start, _ in steps if start != low]
    factor = speeds[high] / speeds[low]
    stands_out = all(steepest >= CLIFF_LEAD * rise for rise in others)
    return (low, high, factor) if factor >= CLIFF_RISE and stands_out else None


def tier2_rates(table: Table, variant: str) -> dict[int, float]:
    """Tokens per second of tier 2's own time, along the axis."""
    found = {}
    for value in table.values:
        cell = table.cells.get((value, variant))
        time = None if cell is None else cell.tier_ms(2)
        if time is not None:
            found[value] = 1e3 / time.mean
    return found


def largest_step(speeds: Mapping[int, float]) -> tuple[int, int, float]:
    """The neighbours whose ratio is largest, and the ratio."""
    ratio, low, high = max((speeds[b] / speeds[a], a, b) for a, b in pairwise(sorted(speeds)))
    return low, high, ratio
