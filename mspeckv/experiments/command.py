"""``mspeckv run`` on a terminal: progress on standard error, a line per row on standard output."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from typing import TypeVar

from tqdm import tqdm

from mspeckv.config import refuse
from mspeckv.console import on_interrupt
from mspeckv.experiments.ablations import IDS, experiment
from mspeckv.experiments.bench import Models
from mspeckv.experiments.rows import Row
from mspeckv.experiments.runs import run
from mspeckv.experiments.schedule import missing
from mspeckv.models import parse_device, parse_dtype
from mspeckv.outputs import check_folder

T = TypeVar("T")


def sweep(options: argparse.Namespace) -> int:
    """Run what is missing of one experiment, or of all; returns the exit code.

    Raises:
        ValueError: a setting that is not allowed; before anything is loaded where that is
            possible.
    """
    names = IDS if options.experiment.lower() == "all" else (options.experiment,)
    if options.values and len(names) > 1:
        raise refuse("values", options.values, "use it with one experiment")
    chosen = [experiment(name, options.preset) for name in names]
    seeds = _each("seeds", options.seeds, int)
    values = _each("values", options.values, int) if options.values else None
    variants = _each("variants", options.variants, str) if options.variants else None
    plan = [(one, one.cells(values, variants)) for one in chosen]
    trials = sum(len(missing(one, seeds, options.out, cells)) for one, cells in plan)
    preset = chosen[0].preset
    models = Models(
        options.target,
        options.draft,
        options.device or preset.device,
        options.dtype or preset.dtype,
    )
    if options.scheduler is None:
        parse_device(models.device)
    parse_dtype(models.dtype)
    check_folder("out", options.out)
    cancel = threading.Event()
    signals: list[int] = []
    failed = 0
    bar = tqdm(total=trials, unit="trial", smoothing=0.0, disable=options.quiet)

    def show(row: Row) -> None:
        nonlocal failed
        failed += not row.ok
        tqdm.write(describe(row))
        bar.update()

    with on_interrupt(cancel, signals), bar:
        here = trials > 0 and options.scheduler is None
        pair = models.load() if here else None
        for one, cells in plan:
            bar.set_description(one.id)
            run(
                one, seeds=seeds, out=options.out, scheduler=options.scheduler, cells=cells,
                models=models, pair=pair, on_row=show, cancel=cancel,
            )  # fmt: skip
    if cancel.is_set():
        return 128 + signals[0]
    return 1 if failed else 0


def describe(row: Row) -> str:
    """A row on one line; its figures are measured, over a link whose kind it names."""
    if row.result is None:
        return f"{row.key}  failed: {row.error}"
    link = row.result["link"]
    speed = f" {link['gbps']:.4g} GB/s" if link["gbps"] is not None else ""
    return (
        f"{row.key}  {row.result['ms_per_token']:.1f} ms/token (measured, link {link['kind']}"
        f"{speed}), {row.result['accepted_per_round']:.2f} accepted per round, "
        f"{row.seconds:.1f} s"
    )


def _each(field: str, text: str, kind: Callable[[str], T]) -> list[T]:
    """The parts of ``text`` between commas.

    Raises:
        ValueError: one is not of its kind.
    """
    parts = [part.strip() for part in text.split(",")]
    try:
        return [kind(part) for part in parts]
    except ValueError:
        raise refuse(field, text, "use whole numbers with commas between them") from None
