"""What rows say, cell by cell and along the axis; intervals and verdicts: `intervals`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from typing import Any

from mspeckv_study.experiments.ablations import VARIANTS
from mspeckv_study.experiments.intervals import Ratio, Sample, Verdict
from mspeckv_study.experiments.rows import Row

CLIFF_RISE = 1.5
"""A step between neighbours is a cliff when speed rises by this factor at least ..."""
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
    def results(self) -> dict[int, dict[str, Any]]:
        """`mspeckv.RunSummary` of every finished run as plain dictionaries, by seed."""
        found = self.finished.items()
        return {seed: row.result for seed, row in found if row.result is not None}

    def _figure(self, ask: Callable[[dict[str, Any]], float | None]) -> Sample | None:
        """What every result says; None where none says anything."""
        found = {seed: ask(one) for seed, one in self.results.items()}
        known = {seed: float(one) for seed, one in found.items() if one is not None}
        return Sample(known) if known else None

    @property
    def speed(self) -> Sample | None:
        """Tokens per second."""
        return self._figure(lambda one: one["tokens_per_second"])

    @property
    def latency(self) -> Sample | None:
        """Milliseconds per token."""
        return self._figure(lambda one: one["ms_per_token"])

    @property
    def accepted(self) -> Sample | None:
        """Guesses that tier 2 kept per round; None for methods that do not guess."""
        guessed = any(tier["proposed"] for one in self.results.values() for tier in one["tiers"])
        return self._figure(lambda one: one["accepted_per_round"]) if guessed else None

    @property
    def link(self) -> Sample | None:
        """Bytes over the link per token while decoding (counted)."""
        found = {seed: row.link_bytes_per_token for seed, row in self.finished.items()}
        return Sample(found) if found else None

    def kv_read(self, tier: int) -> Sample | None:
        """Bytes of KV that a tier's attention read per token (counted)."""
        reads = {seed: row.kv_read_per_token for seed, row in self.finished.items()}
        found = {seed: read[str(tier)] for seed, read in reads.items() if str(tier) in read}
        return Sample(found) if found else None

    def tier_ms(self, tier: int, per_pass: bool = False) -> Sample | None:
        """Milliseconds of a tier's passes, waits for the link included: per token, or of one."""

        def ask(one: dict[str, Any]) -> float | None:
            own = next((own for own in one["tiers"] if own["tier"] == tier), None)
            return own and own["ms"] / (own["passes"] if per_pass else len(one["tokens"]))

        return self._figure(ask)

    @property
    def device_kv_bytes(self) -> float | None:
        """Bytes of tier 2's on-chip and resident KV of the full context (modelled)."""
        for one in self.results.values():
            return float(one["memory"]["on_chip_bytes"] + one["memory"]["resident_bytes"])
        return None

    @property
    def hit_rate(self) -> float | None:
        """Share of packed layers that tier 2 found on the device, over all seeds together."""
        counts = [one.get("residency", {}) for one in self.results.values()]
        hits, misses = (sum(one.get(name, 0) for one in counts) for name in ("hits", "misses"))
        return hits / (hits + misses) if hits + misses else None

    @property
    def clock(self) -> str:
        """``emulated`` where a throttled copy stood in for the link, else ``measured``."""
        return _clock(one["link"]["kind"] for one in self.results.values())


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

    def speed(self, value: int, variant: str) -> Sample | None:
        """Tokens per second; None where there is no finished trial."""
        cell = self.cells.get((value, variant))
        return None if cell is None else cell.speed

    def compare(self, value: int, variant: str, reference: str) -> Ratio | None:
        """Tokens per second over the reference's; None where no repeat finished both."""
        ours, theirs = self.speed(value, variant), self.speed(value, reference)
        return None if ours is None or theirs is None else ours.over(theirs)

    def along(self, variant: str, reference: str) -> dict[int, Ratio]:
        """The comparison at every value where there is one."""
        found = {value: self.compare(value, variant, reference) for value in self.values}
        return {value: ratio for value, ratio in found.items() if ratio is not None}

    def steps(self, variant: str) -> dict[tuple[int, int], Ratio]:
        """How many times as fast tier 2 becomes from each value to the next, repeat by repeat."""
        cells = (self.cells.get((value, variant)) for value in self.values)
        times = {one.value: one.tier_ms(2) for one in cells if one is not None}
        known = [(value, time) for value, time in times.items() if time is not None]
        found = {(a, b): before.over(after) for (a, before), (b, after) in pairwise(known)}
        return {ends: ratio for ends, ratio in found.items() if ratio is not None}


def summarise(rows: Iterable[Row]) -> tuple[Table, ...]:
    """One table per experiment and preset, in the order of their names."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.experiment, row.preset), []).append(row)
    return tuple(_table(groups[name]) for name in sorted(groups))


def cliff(steps: Mapping[tuple[int, int], Ratio]) -> tuple[tuple[int, int], Verdict]:
    """The steepest step, and whether intervals show it to be a cliff.

    Shown: it rises by `CLIFF_RISE` at least, and so much steeper than any other (`CLIFF_LEAD`).
    Contradicted: no step rises by `CLIFF_RISE`.
    """

    def rise(ends: tuple[int, int], factor: float) -> float:
        return log(factor) / (ends[1] - ends[0])

    best = max(steps, key=lambda ends: rise(ends, steps[ends].centre))
    others = [rise(ends, one.interval[1]) for ends, one in steps.items() if ends != best]
    if not all(one.sure for one in steps.values()):
        return best, "not shown"
    if all(one.interval[1] < CLIFF_RISE for one in steps.values()):
        return best, "contradicted"
    low = steps[best].interval[0]
    leads = all(rise(best, low) >= CLIFF_LEAD * other for other in others)
    return best, "shown" if low >= CLIFF_RISE and leads else "not shown"


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
        {place: outcome(*place, found) for place, found in cells.items()},
        tuple(sorted({_named(row.hardware) for row in rows})),
        tuple(sorted({_named({**row.versions, "mspeckv": row.mspeckv}) for row in rows})),
    )


def outcome(value: int, variant: str, rows: Sequence[Row]) -> CellOutcome:
    """A cell's rows, sorted out."""
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


def _named(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
