"""A2, resident layers: exact intervals, one configuration in many cells, and whose the gain is."""

from __future__ import annotations

from math import isclose, log
from typing import Any

from mspeckv_study.experiments import load_rows, noise_floor
from mspeckv_study.experiments.intervals import best_rank
from mspeckv_study.experiments.intervals import coverage as share_held
from mspeckv_widgets.course.answers import call, near, same_function, short
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.results import find_results, load_results

LISTS = [
    [12.0, 9.0, 11.0, 10.0, 14.0, 13.0, 8.0, 15.0, 30.0, 7.0],
    [3.0, 1.0, 2.0],
    [float(one * one % 17) + one / 100 for one in range(17)],
    [5.0, 4.0, 9.0, 6.0, 8.0, 7.0],
]


def check_coverage(found: Any) -> Verdict:
    """A function gives how often an interval of ranks holds the median."""
    cases = [(10, 2), (10, 1), (10, 3), (3, 1), (5, 1), (25, 8), (2, 1)]
    why = "whatever the distribution: a repeat falls below the median as a coin shows heads."
    return same_function(found, share_held, cases, why)


def interval(values: list[float], confidence: float) -> tuple[float, float] | None:
    """The narrowest interval of ranks that holds the median so often; None if there is none."""
    rank = best_rank(len(values), confidence)
    if share_held(len(values), rank) < confidence:
        return None
    return sorted(values)[rank - 1], sorted(values)[-rank]


def check_interval(found: Any) -> Verdict:
    """A function gives an exact interval of a median, or None."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    for values in LISTS:
        for confidence in (0.95, 0.8):
            gave, right = call(found, list(values), confidence), interval(values, confidence)
            told = f"{len(values)} values, {confidence:.0%}: it returned {short(gave)}"
            if right is None:
                if gave is not None:
                    return Verdict(False, f"{told}; not even the whole range holds so often")
            elif not _same_ends(gave, right):
                return Verdict(False, f"{told}; {right} is right")
    return Verdict(True, "of ten repeats, second least to second largest: 97.9 %.")


def _same_ends(gave: Any, right: tuple[float, float]) -> bool:
    ends = gave if isinstance(gave, (tuple, list)) and len(gave) == len(right) else ()
    return bool(ends) and all(isclose(one, two) for one, two in zip(ends, right, strict=True))


def check_same(found: Any) -> Verdict:
    """Groups of cells that are one configuration, in all rows that are stored."""
    right = {frozenset(group) for group in noise_floor(load_rows(find_results())).groups}
    if not isinstance(found, (list, tuple, set, frozenset)):
        return Verdict(False, f"a list of groups is asked for, this is {short(found)}")
    try:
        gave = {frozenset(tuple(cell) for cell in group) for group in found}
    except TypeError:
        return Verdict(False, "each group is a list of (experiment, value, variant)")
    gave = {group for group in gave if len(group) > 1}
    if gave == right:
        cells = sum(map(len, right))
        return Verdict(True, f"{cells} cells are in truth {len(right)} configurations.")
    for group in sorted(gave - right, key=sorted):
        bigger = next((one for one in right if group < one), None)
        if bigger is not None:
            lack = len(bigger) - len(group)
            return Verdict(False, f"{short(sorted(group))} is right but lacks {lack} more")
        return Verdict(False, f"{short(sorted(group))} are not all told the same")
    return Verdict(False, f"{len(right - gave)} groups are missing")


def check_share(found: Any) -> Verdict:
    """Packing's share of the whole gain over triforce, on the scale of logarithms."""
    table = load_results("A2").table
    packing = table.compare(table.values[0], "mspeckv", "triforce")
    none, full = (table.speed(value, "mspeckv") for value in (table.values[0], table.values[-1]))
    keeping = full.over(none) if full is not None and none is not None else None
    if packing is None or keeping is None or table.values[0]:
        return Verdict(False, "these results lack a cell that this needs")
    share = log(packing.centre) / (log(packing.centre) + log(keeping.centre))
    told = f"packing {packing.text()}, then keeping {keeping.text()}; published, 1.09 and 2.65."
    return near(found, share, 0.03, told)


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "how often an interval of ranks holds the median",
        check_coverage,
        "Each repeat falls below the median with probability 1/2. The interval misses on one side "
        "when fewer than `rank` repeats fall there.",
        "math.comb(count, k) / 2**count is the probability that exactly k fall below. Add up for k "
        "below rank; the other side is as likely.",
    ),
    "e2": Exercise(
        "an exact interval of a median",
        check_interval,
        "Sort. Then take as many values away from both ends as the coverage allows.",
        "Go through the ranks 1, 2, ... while coverage(len(values), rank) is enough; the last such "
        "rank gives both ends. None if rank 1 is not enough.",
    ),
    "e3": Exercise(
        "cells that are one configuration",
        check_same,
        "A cell's name says what was meant; row.result['config'] says what the run was told. Which "
        "part of it must differ between repeats and yet does not matter?",
        "Turn the configuration, less its seed, into text with json.dumps(..., sort_keys=True), "
        "and collect the cells of each text in a set.",
    ),
    "e4": Exercise(
        "packing's share of the gain",
        check_share,
        "Go from triforce to mspeckv in two steps and change one thing in each. Gains multiply; "
        "what adds up?",
        "log(packing) / (log(packing) + log(keeping)), where packing is mspeckv over triforce with "
        "nothing resident, and keeping is mspeckv with all over mspeckv with none.",
    ),
}
