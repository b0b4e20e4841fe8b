"""What rows say: mean and spread of each cell, and methods compared seed by seed.

Methods are paired by seed, since a seed fixes the order of methods and what the machine was doing
meanwhile; the interval is a percentile bootstrap of the mean speed-up (Efron and Tibshirani, "An
Introduction to the Bootstrap", chapter 13).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import log
from typing import Any

import numpy as np

from mspeckv.experiments.ablations import VARIANTS
from mspeckv.experiments.rows import Row
from mspeckv.whatif.published_tables import MeanStd

CONFIDENCE = 0.95
RESAMPLES = 10_000
CLIFF_RISE = 1.5
"""A step between neighbours counts as a cliff when speed rises by this factor at least ..."""
CLIFF_LEAD = 2.0
"""... and its rise per layer (of the logarithm) is this many times that of any other step."""


@dataclass(frozen=True)
class CellOutcome:
    """One variant at one place of the axis: rows that produced tokens, and what failed, by seed."""

    value: int
    variant: str
    finished: Mapping[int, Row]
    failed: Mapping[int, str]

    @property
    def results(self) -> list[dict[str, Any]]:
        """`mspeckv.RunSummary` of every finished run as plain dictionaries, by seed."""
        return [row.result for row in self.finished.values() if row.result is not None]

    @property
    def speeds(self) -> dict[int, float]:
        """Tokens per second, by seed."""
        speeds = (float(one["tokens_per_second"]) for one in self.results)
        return dict(zip(self.finished, speeds, strict=True))

    @property
    def speed(self) -> MeanStd | None:
        """Tokens per second."""
        return _spread(self.speeds.values())

    @property
    def latency(self) -> MeanStd | None:
        """Milliseconds per token."""
        return _spread(one["ms_per_token"] for one in self.results)

    @property
    def accepted(self) -> MeanStd | None:
        """Guesses that tier 2 kept per round; None for methods that do not guess."""
        return _spread(
            one["accepted_per_round"]
            for one in self.results
            if any(tier["proposed"] for tier in one["tiers"])
        )

    @property
    def link(self) -> MeanStd | None:
        """Bytes over the link per token while decoding (counted)."""
        return _spread(row.link_bytes_per_token for row in self.finished.values())

    @property
    def kv_read(self) -> dict[int, MeanStd]:
        """Bytes of KV that each tier's attention read per token (counted)."""
        reads = [row.kv_read_per_token for row in self.finished.values()]
        tiers = sorted({tier for read in reads for tier in read})
        return {int(one): MeanStd.of([read[one] for read in reads if one in read]) for one in tiers}

    def tier_ms(self, tier: int) -> MeanStd | None:
        """Milliseconds per token of a tier's passes, waits for the link included."""
        return _spread(
            own["ms"] / len(one["tokens"])
            for one in self.results
            for own in one["tiers"]
            if own["tier"] == tier
        )

    @property
    def device_kv_bytes(self) -> float | None:
        """Bytes of on-chip and resident KV of the full context (modelled)."""
        sizes = [one["memory"] for one in self.results]
        return float(sizes[0]["on_chip_bytes"] + sizes[0]["resident_bytes"]) if sizes else None

    @property
    def hit_rate(self) -> float | None:
        """Share of packed layers that tier 2 found on the device, over all seeds together."""
        counts = [one.get("residency", {}) for one in self.results]
        hits, misses = (sum(one.get(name, 0) for one in counts) for name in ("hits", "misses"))
        return hits / (hits + misses) if hits + misses else None

    @property
    def clock(self) -> str:
        """``emulated`` where a throttled copy stood in for the link, else ``measured``."""
        return _clock(one["link"]["kind"] for one in self.results)


@dataclass(frozen=True)
class Comparison:
    """Two variants at one place of the axis, seed by seed.

    Attributes:
        seeds: those that both finished.
        delta: tokens per second more than the reference.
        speedup: tokens per second over the reference's; the mean is over the seeds' ratios.
        interval: bootstrap interval of that mean at `CONFIDENCE`; None with a single seed.
    """

    value: int
    seeds: tuple[int, ...]
    delta: MeanStd
    speedup: MeanStd
    interval: tuple[float, float] | None

    def text(self, digits: int = 2) -> str:
        """``4.75x [4.60, 4.90]``."""
        between = ""
        if self.interval is not None:
            between = f" [{self.interval[0]:.{digits}f}, {self.interval[1]:.{digits}f}]"
        return f"{self.speedup.mean:.{digits}f}x{between}"


@dataclass(frozen=True)
class Table:
    """One experiment under one preset.

    Attributes:
        axis: what `values` are, such as ``prefill``.
        cells: by value and variant; only what was tried is there.
        machines, versions: every one that rows were made with.
    """

    experiment: str
    preset: str
    axis: str
    values: tuple[int, ...]
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: Mapping[tuple[int, str], CellOutcome]
    machines: tuple[str, ...]
    versions: tuple[str, ...]

    @property
    def failed(self) -> tuple[tuple[int, str, int, str], ...]:
        """Failed trials: value, variant, seed, error."""
        cells = self.cells.values()
        return tuple((c.value, c.variant, s, e) for c in cells for s, e in c.failed.items())

    @property
    def clock(self) -> str:
        """The label of the table's times."""
        return _clock(cell.clock for cell in self.cells.values())

    def speed(self, value: int, variant: str) -> float | None:
        """Mean tokens per second; None where there is no finished trial."""
        cell = self.cells.get((value, variant))
        speed = None if cell is None else cell.speed
        return None if speed is None else speed.mean

    def speeds(self, variant: str) -> dict[int, float]:
        """Mean tokens per second, by every value where there is one."""
        found = {value: self.speed(value, variant) for value in self.values}
        return {value: speed for value, speed in found.items() if speed is not None}

    def compare(self, value: int, variant: str, reference: str) -> Comparison | None:
        """Seed by seed; None where no seed finished both."""
        one, other = self.cells.get((value, variant)), self.cells.get((value, reference))
        if one is None or other is None:
            return None
        ours, theirs = one.speeds, other.speeds
        seeds = tuple(seed for seed in ours if seed in theirs)
        if not seeds:
            return None
        delta = MeanStd.of([ours[seed] - theirs[seed] for seed in seeds])
        ratios = [ours[seed] / theirs[seed] for seed in seeds]
        return Comparison(value, seeds, delta, MeanStd.of(ratios), bootstrap_interval(ratios))

    def along(self, variant: str, reference: str) -> list[Comparison]:
        """The comparison at every value where there is one."""
        found = (self.compare(value, variant, reference) for value in self.values)
        return [one for one in found if one is not None]


def summarise(rows: Iterable[Row]) -> tuple[Table, ...]:
    """One table per experiment and preset, in the order of their names."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.experiment, row.preset), []).append(row)
    return tuple(_table(groups[name]) for name in sorted(groups))


def bootstrap_interval(
    values: Sequence[float], confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval of the mean; None for fewer than two values.

    Where all resamples are few enough (five values: 3125), each is taken once, so that nothing is
    left to chance; else `RESAMPLES` are drawn with ``seed``. Of three values, one resample in 27
    repeats the least: at 95 % the interval then is their whole range.
    """
    data = np.asarray(values, dtype=np.float64)
    count = len(data)
    if count < 2:
        return None
    if count**count <= RESAMPLES:
        picks = np.array(list(product(range(count), repeat=count)))
    else:
        picks = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    rest = (1 - confidence) / 2
    means = data[picks].mean(axis=1)
    low, high = np.quantile(means, [rest, 1 - rest], method="inverted_cdf")
    return float(low), float(high)


def cliff(speeds: Mapping[int, float]) -> tuple[int, int, float] | None:
    """The neighbours between which speed jumps (`CLIFF_RISE`, `CLIFF_LEAD`), and by what factor."""
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
    cells = (table.cells.get((value, variant)) for value in table.values)
    times = {cell.value: cell.tier_ms(2) for cell in cells if cell is not None}
    return {value: 1e3 / time.mean for value, time in times.items() if time is not None}


def largest_step(speeds: Mapping[int, float]) -> tuple[int, int, float]:
    """The neighbours whose ratio is largest, and the ratio."""
    ratio, low, high = max((speeds[b] / speeds[a], a, b) for a, b in pairwise(sorted(speeds)))
    return low, high, ratio


def _table(rows: Sequence[Row]) -> Table:
    cells: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        cells.setdefault((row.value, row.variant), []).append(row)
    variants, first = {row.variant for row in rows}, rows[0]
    known = [name for name in VARIANTS if name in variants]
    return Table(
        first.experiment,
        first.preset,
        first.axis,
        tuple(sorted({row.value for row in rows})),
        (*known, *sorted(variants.difference(VARIANTS))),
        tuple(sorted({row.seed for row in rows})),
        {place: _outcome(*place, found) for place, found in cells.items()},
        tuple(sorted({_named(row.hardware) for row in rows})),
        tuple(sorted({_named({**row.versions, "mspeckv": row.mspeckv}) for row in rows})),
    )


def _outcome(value: int, variant: str, rows: Sequence[Row]) -> CellOutcome:
    finished: dict[int, Row] = {}
    failed: dict[int, str] = {}
    for row in sorted(rows, key=lambda one: one.seed):
        if not row.ok or row.result is None:
            failed[row.seed] = row.error or "no result"
        elif not row.result["tokens_per_second"]:
            failed[row.seed] = "it produced no token"
        else:
            finished[row.seed] = row
    return CellOutcome(value, variant, finished, failed)


def _clock(kinds: Iterable[str]) -> str:
    """A clock that any emulated link slowed is no measure of a machine."""
    return "emulated" if "emulated" in kinds else "measured"


def _spread(values: Iterable[float]) -> MeanStd | None:
    found = list(values)
    return MeanStd.of(found) if found else None


def _named(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
