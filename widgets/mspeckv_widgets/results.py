"""Results of the ablations: the committed ones, those of a folder, or a reduced sweep's."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mspeckv import Memory, Pair, RunSummary, TierCount
from mspeckv.events import LinkSummary, Residency
from mspeckv.settings import check_kind, refuse
from mspeckv_study.cli.labs import course
from mspeckv_study.experiments import (
    Cell,
    Experiment,
    Match,
    Row,
    experiment,
    findings,
    load_rows,
    match_rows,
    run,
)

FOLDER = "results"
FEW_TOKENS = 16


def find_results(folder: str | Path | None = None) -> Path:
    """Where results lie: ``folder``, else ``results`` here, else those that came with the labs.

    Raises:
        ValueError: there is no such folder.
    """
    check_kind("results", folder, str | Path | None, "a folder's path")
    if folder is not None:
        places = [Path(folder)]
    else:
        places = [Path(FOLDER), course() / "labs" / FOLDER]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise refuse("results", str(places[0]), "use a folder that `mspeckv run` wrote")
    return found


def load_results(name: str, folder: str | Path | None = None) -> Match:
    """An experiment's results, classroom preset, beside the published figures.

    Args:
        name: ``A1``, ``A2``, ``B1`` or ``B2``.
        folder: see `find_results`.

    Raises:
        ValueError: no such experiment, or none of its rows there.
    """
    known = experiment(name)
    place = find_results(folder)
    file = place / f"{known.id}-{known.preset.name}.jsonl"
    if not file.is_file():
        raise refuse("results", str(place), f"there are none of {known.id}: see `mspeckv run`")
    return match_of(known, load_rows(place))


def match_of(known: Experiment, rows: Sequence[Row]) -> Match:
    """An experiment's rows beside the published figures; the noise floor is of all ``rows``.

    Raises:
        ValueError: there are none of it.
    """
    found = [one for one in match_rows(rows) if one.experiment is known]
    if not found:
        raise refuse("results", known.id, "there are no rows of it yet")
    return found[0]


def reduced(
    known: Experiment,
    values: Sequence[int] | None = None,
    variants: Sequence[str] | None = None,
    new_tokens: int = FEW_TOKENS,
) -> list[Cell]:
    """Cells of a sweep that takes seconds: the first value, two variants, few tokens.

    Where new tokens are the axis, ``values`` are those and ``new_tokens`` is without effect.

    Raises:
        ValueError: a value or a variant that is not allowed.
    """
    small = known
    if known.axis != "new_tokens":
        small = replace(known, preset=replace(known.preset, new_tokens=new_tokens))
    return small.cells(
        known.values[:1] if values is None else values,
        (known.reference, "mspeckv") if variants is None else variants,
    )


def rerun(
    name: str,
    values: Sequence[int] | None = None,
    variants: Sequence[str] | None = None,
    *,
    new_tokens: int = FEW_TOKENS,
    seeds: Sequence[int] = (1,),
    pair: Pair | None = None,
    on_row: Callable[[Row], None] | None = None,
    cancel: threading.Event | None = None,
) -> list[Row]:
    """Run a reduced sweep here and now; its rows go nowhere else.

    Args:
        name: ``A1``, ``A2``, ``B1`` or ``B2``.
        values: places of the axis; default: the first.
        variants: default: the reference and ``mspeckv``.
        new_tokens: of every trial, unless they are the axis.
        seeds: a trial for each.
        pair: a loaded pair; default: the default pair is loaded.
        on_row: told of every row.
        cancel: ends the sweep within one pass.

    Raises:
        ValueError: a setting that is not allowed.
    """
    known = experiment(name)
    cells = reduced(known, values, variants, new_tokens)
    # a folder of its own: shorter trials have the same keys as whole ones
    with tempfile.TemporaryDirectory(prefix="mspeckv-") as folder:
        return run(
            known, seeds=seeds, out=folder, cells=cells, pair=pair, on_row=on_row, cancel=cancel
        )


def summary_of(row: Row) -> RunSummary:
    """The run behind a row, for score cards.

    Raises:
        ValueError: the trial failed.
    """
    if row.result is None:
        raise refuse("row", row.key, f"use one that is ok; it failed with {row.error}")
    found = dict(row.result)
    found["tiers"] = tuple(TierCount(**tier) for tier in found["tiers"])
    for name in ("tokens", "settled_by", "kv_read_bytes"):
        found[name] = tuple(found[name])
    kinds = {"link": LinkSummary, "residency": Residency, "memory": Memory}
    return RunSummary(**{**found, **{name: kind(**found[name]) for name, kind in kinds.items()}})


def tell(match: Match, *topics: str) -> None:
    """Print what intervals show on some topics, each with its verdict."""
    for one in findings(match):
        if one.topic in topics:
            verdict = f" [{one.verdict}]" if one.verdict else ""
            print(f"{one.topic}{verdict}: {one.text}")
