"""A whole experiment: every trial once, in a fair order, each a row on disk before the next."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mspeckv.models.pair import Pair
from mspeckv.settings import refuse
from mspeckv_study.experiments.ablations import Cell, Experiment, experiment
from mspeckv_study.experiments.bench import Bench, Models
from mspeckv_study.experiments.cluster import run_on
from mspeckv_study.experiments.rows import Row, agree
from mspeckv_study.experiments.schedule import OnRow, Sweep

SEEDS = tuple(range(1, 11))
"""Ten, so that a median has an interval that its ranks alone give."""


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
        scheduler: address of a Dask scheduler whose workers run the trials instead.
        cells: some of `Experiment.cells`; default: all.
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
    own = chosen.preset
    sweep = Sweep(chosen, seeds, out, cells, on_row, cancel)
    models = models or Models(device=own.device, dtype=own.dtype)
    if scheduler is not None and pair is not None:
        raise refuse("pair", pair.target_id, "workers load models themselves: use models=")
    if not sweep.missing():
        return sweep.found()
    if scheduler is not None:
        run_on(scheduler, sweep, chosen, models, Path(out))
        return sweep.found()
    bench = Bench(pair or models.load())
    bench.check(chosen)
    agree(Path(out), own.name, partial(bench.setup, own))
    sweep.run(bench)
    return sweep.found()
