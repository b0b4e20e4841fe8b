"""A sweep: every trial once, in a fair order, each a row on disk before the next begins."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mspeckv.config import check_count, refuse
from mspeckv.experiments.bench import Bench, Models
from mspeckv.experiments.definitions import Cell, Experiment, Trial, experiment
from mspeckv.experiments.row import Row
from mspeckv.experiments.setup import agree
from mspeckv.experiments.store import Store, settled

SEEDS = (1, 2, 3)
_POLL_SECONDS = 0.5
"""Between two looks at trials that another runner has claimed."""

OnRow = Callable[[Row], None]


def run(
    name: str | Experiment,
    preset: str = "classroom",
    seeds: Sequence[int] = SEEDS,
    out: str | Path = "results",
    *,
    cells: Sequence[Cell] | None = None,
    models: Models | None = None,
    bench: Bench | None = None,
    on_row: OnRow | None = None,
    cancel: threading.Event | None = None,
) -> list[Row]:
    """Run what is missing of an experiment, and return the rows of all that was asked for.

    Safe to kill at any point and to run again, and to run several times at once on one folder: a
    trial that has an ok row is not repeated, one that failed before this call is tried again.

    Args:
        name: ``A1``, ``A2``, ``B1``, ``B2``, or an experiment of your own.
        preset: ``classroom`` or ``origin``; without effect on an experiment of your own.
        seeds: of the sampling; a row per cell and seed.
        out: folder of the rows; made if it is not there.
        cells: what to run of it; see `Experiment.cells`. Default: everything.
        models: what to load; default: the default pair on the preset's device and dtype.
        bench: a pair already in memory, and what was read with it before, instead.
        on_row: told of every row that was missing, once it is on disk.
        cancel: ends the sweep within one pass; the trial under way leaves no row.

    Returns:
        One row per trial, in the definition's order; less those that a cancelled sweep has not
        come to.

    Raises:
        ValueError: a setting that is not allowed; a target that the placements are not made for;
            a folder with rows of other models.
    """
    chosen = name if isinstance(name, Experiment) else experiment(name, preset)
    trials = ordered(chosen, chosen.cells() if cells is None else cells, seeds)
    store = Store(Path(out), chosen.id, chosen.preset.name)
    sweep = Sweep(store, trials, on_row, cancel)
    if sweep.missing():
        own = chosen.preset
        models = models or Models(device=own.device, dtype=own.dtype)
        bench = bench or Bench(models.load())
        bench.check(chosen)
        agree(Path(out), own.name, lambda step: bench.setup(own, step))
        sweep.run(bench)
    return sweep.found()


def missing(
    chosen: Experiment, seeds: Sequence[int], out: str | Path, cells: Sequence[Cell] | None = None
) -> list[Trial]:
    """The trials that `run` would run, in its order.

    Raises:
        ValueError: as for `run`.
    """
    trials = ordered(chosen, chosen.cells() if cells is None else cells, seeds)
    return Sweep(Store(Path(out), chosen.id, chosen.preset.name), trials).missing()


def ordered(chosen: Experiment, cells: Iterable[Cell], seeds: Sequence[int]) -> list[Trial]:
    """Trials seed by seed, value by value, variants next to one another, both shuffled per seed.

    A machine that slows down for a while then slows all variants of a value alike, and one that
    slows down for good does not always hit the same ones. The order depends on nothing else, so
    a run that goes on later keeps it.

    Raises:
        ValueError: a seed that is not allowed, or named twice; nothing to run.
    """
    cells = list(cells)
    for seed in seeds:
        check_count("seeds", seed, 0, 2**63 - 1)
    if not seeds or len(set(seeds)) < len(seeds):
        raise refuse("seeds", tuple(seeds), "use at least one, and each once")
    if not cells or len({cell.key for cell in cells}) < len(cells):
        raise refuse("cells", [cell.key for cell in cells], "use at least one, and each once")
    out = []
    for seed in seeds:
        shuffled = random.Random(f"{chosen.id}/{chosen.preset.name}/{seed}")
        values = sorted({cell.value for cell in cells})
        shuffled.shuffle(values)
        for value in values:
            row = sorted((cell for cell in cells if cell.value == value), key=lambda c: c.variant)
            shuffled.shuffle(row)
            out += [Trial(cell, seed) for cell in row]
    return out


class Sweep:
    """Trials to be run into a store, by whoever claims them first.

    Args:
        store: where rows go.
        trials: in order.
        on_row: told of every row that was missing.
        cancel: ends the sweep.
    """

    def __init__(
        self,
        store: Store,
        trials: Sequence[Trial],
        on_row: OnRow | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        self.store, self.trials = store, trials
        self.cancel = cancel or threading.Event()
        self._on_row = on_row
        self._failed_before = Counter(row.key for row in store.rows() if not row.ok)

    def missing(self) -> list[Trial]:
        """Trials without an ok row, less those that have failed since the sweep began."""
        rows = self.store.rows()
        done = {row.key for row in rows if row.ok}
        failed = Counter(row.key for row in rows if not row.ok) - self._failed_before
        return [one for one in self.trials if one.key not in done and one.key not in failed]

    def found(self) -> list[Row]:
        """One row per trial that has any, in the trials' order."""
        by_key = {row.key: row for row in settled(self.store.rows())}
        return [by_key[one.key] for one in self.trials if one.key in by_key]

    def run(self, bench: Bench) -> None:
        """Run every missing trial here, and wait for those that other runners have claimed."""
        waiting = self.missing()
        while waiting and not self.cancel.is_set():
            others = [one for one in waiting if not self._try(one, bench)]
            if len(others) == len(waiting):
                self.cancel.wait(_POLL_SECONDS)
            waiting = others

    def settle(self, row: Row) -> None:
        """Put a row on disk and tell of it."""
        self.store.append(row)
        self.tell(row)

    def tell(self, row: Row) -> None:
        """A row that was missing is on disk."""
        if self._on_row is not None:
            self._on_row(row)

    def _try(self, trial: Trial, bench: Bench) -> bool:
        """Run a trial unless another runner is at it; whether it needs no further look."""
        if self.cancel.is_set():
            return True
        with self.store.claim(trial.key) as mine:
            if not mine:
                return False
            if trial not in self.missing():
                # another runner was faster
                self.tell(next(row for row in self.found() if row.key == trial.key))
                return True
            row = bench.run(trial, self.cancel)
            if row is not None:
                self.settle(row)
        return True
