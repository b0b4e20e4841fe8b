"""A sweep: every trial once, in a fair order, each a row on disk before the next begins."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from mspeckv.config import check_count, refuse
from mspeckv.experiments.bench import Bench, Models
from mspeckv.experiments.definitions import Cell, Experiment, Trial, experiment
from mspeckv.experiments.row import Row
from mspeckv.experiments.setup import agree
from mspeckv.experiments.store import Store
from mspeckv.experiments.sweep import OnRow, Sweep
from mspeckv.models import Pair

SEEDS = (1, 2, 3)


def run(
    name: str | Experiment,
    preset: str = "classroom",
    seeds: Sequence[int] = SEEDS,
    out: str | Path = "results",
    *,
    scheduler: str | None = None,
    cells: Sequence[Cell] | None = None,
    models: Models | None = None,
    pair: Pair | None = None,
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
        scheduler: address of a Dask scheduler whose workers run the trials; see
            `mspeckv.experiments.cluster`.
        cells: what to run of it; see `Experiment.cells`. Default: everything.
        models: what to load; default: the default pair on the preset's device and dtype.
        pair: models already in memory, instead; not with a scheduler.
        on_row: told of every row that was missing, once it is on disk, whoever made it.
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
    own = chosen.preset
    models = models or Models(device=own.device, dtype=own.dtype)
    if scheduler is not None and pair is not None:
        raise refuse("pair", pair.target_id, "workers load models themselves: use models=")
    if not sweep.missing():
        return sweep.found()
    if scheduler is not None:
        from mspeckv.experiments.cluster import run_on

        run_on(scheduler, sweep, chosen, models, Path(out))
        return sweep.found()
    bench = Bench(pair or models.load())
    bench.check(chosen)
    agree(Path(out), own.name, partial(bench.setup, own))
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
