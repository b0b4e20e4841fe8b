"""A sweep's trials: in which order, which are missing, who runs them, what has come."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mspeckv.settings import check_count, refuse
from mspeckv_study.experiments.ablations import Cell, Experiment, Trial
from mspeckv_study.experiments.bench import Bench
from mspeckv_study.experiments.rows import Row, RowStore, settled

POLL_SECONDS = 0.5
"""Between two looks at what other runners do."""

OnRow = Callable[[Row], None]


class Sweep:
    """Trials to be run into a folder, by whoever claims them first; arguments as of `run`."""

    def __init__(
        self,
        chosen: Experiment,
        seeds: Sequence[int],
        out: str | Path,
        cells: Sequence[Cell] | None = None,
        on_row: OnRow | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        self.trials = ordered(chosen, chosen.cells() if cells is None else cells, seeds)
        self.store = RowStore(Path(out), chosen.id, chosen.preset.name)
        self.cancel = cancel or threading.Event()
        self._on_row = on_row
        self._failed_before = Counter(row.key for row in self.store.rows() if not row.ok)
        self._untold = {trial.key for trial in self.missing()}

    def missing(self) -> list[Trial]:
        """Trials without an ok row, less those that have failed since the sweep began."""
        rows = self.store.rows()
        done = {row.key for row in rows if row.ok}
        failed = Counter(row.key for row in rows if not row.ok) - self._failed_before
        return [one for one in self.trials if one.key not in done and one.key not in failed]

    def is_missing(self, trial: Trial) -> bool:
        """Whether a trial is still to be run; ask again once it is claimed."""
        return any(one.key == trial.key for one in self.missing())

    def found(self) -> list[Row]:
        """One row per trial that has any, in the trials' order."""
        by_key = {row.key: row for row in settled(self.store.rows())}
        return [by_key[one.key] for one in self.trials if one.key in by_key]

    def run(self, bench: Bench) -> None:
        """Run every missing trial here, and wait for those that other runners have claimed."""
        while (waiting := self.missing()) and not self.cancel.is_set():
            ran = [self._try(one, bench) for one in waiting]
            if not any(ran):
                self.cancel.wait(POLL_SECONDS)
                self.tell_news()

    def settle(self, row: Row) -> None:
        """Put a row on disk, and tell of it."""
        self.store.append(row)
        self.tell_news()

    def tell_news(self) -> None:
        """Tell of rows that have come, from here or from other runners."""
        still = {trial.key for trial in self.missing()}
        for row in self.found():
            if row.key in self._untold - still:
                self._untold.remove(row.key)
                if self._on_row is not None:
                    self._on_row(row)

    def _try(self, trial: Trial, bench: Bench) -> bool:
        """Run a trial; False if another runner is at it, or has been, or the sweep is over."""
        if self.cancel.is_set():
            return False
        with self.store.claim(trial.key) as mine:
            if not mine or not self.is_missing(trial):
                return False
            row = bench.run(trial, self.cancel)
            if row is None:
                return False
            self.settle(row)
        return True


def missing(
    chosen: Experiment, seeds: Sequence[int], out: str | Path, cells: Sequence[Cell] | None = None
) -> list[Trial]:
    """The trials that `run` would run, in its order; refuses what it refuses."""
    return Sweep(chosen, seeds, out, cells).missing()


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
