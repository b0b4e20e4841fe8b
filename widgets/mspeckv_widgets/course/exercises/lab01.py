"""The live lab: what the panel counts, and formulas held against runs of one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mspeckv_widgets.compared import link_bytes, values_of
from mspeckv_widgets.course.answers import as_number, call, same_function, short
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.record import RunRecord

LAYERS = 30
"""Of the default target."""


def alike(records: Sequence[RunRecord], field: str, *values: Any) -> dict[Any, RunRecord]:
    """The newest finished runs that have each of the values in one field, and all else alike.

    Args:
        records: newest first, as the panel has them.
        field: of `mspeckv_widgets.compared.values_of`, such as ``resident``.

    Returns:
        A run by value; nothing where there are no such runs.
    """
    finished = [(values_of(one.setting), one) for one in records if one.finished]
    for flat, first in finished:
        if flat[field] != values[0]:
            continue
        found = {values[0]: first}
        for wanted in values[1:]:
            for other, record in finished:
                if other == {**flat, field: wanted}:
                    found.setdefault(wanted, record)
        if len(found) == len(values):
            return found
    return {}


def check_bytes(answer: Any) -> Verdict:
    """``(function, panel.records)``: it gives each run's bytes over the link per token."""
    told = _function_and_runs(answer)
    if isinstance(told, Verdict):
        return told
    found, finished = told
    if not any(link_bytes(one) for one in finished):
        return Verdict(False, "in none of your runs anything crossed the link: offload some layers")
    for record in finished:
        gave, right = call(found, record.rounds), link_bytes(record)
        number = as_number(gave)
        if number is None:
            return Verdict(False, f"it returned {short(gave)} instead of a number")
        if not math.isclose(number, right, rel_tol=1e-3, abs_tol=1e-9):
            return Verdict(
                False, f"for run {record.label} it returned {number:,.0f}; the panel counted "
                f"{right:,.0f} bytes per token",
            )  # fmt: skip
    return Verdict(True, f"that is what the panel counted, for all {len(finished)} of your runs.")


def share_left(on_chip: int, resident: int) -> float:
    """The share of the link's bytes that is left, beside no resident layer at all."""
    return (LAYERS - on_chip - resident) / (LAYERS - on_chip)


def check_left(answer: Any) -> Verdict:
    """``(function, panel.records)``: the share that is left, held against two runs' bytes."""
    told = _function_and_runs(answer)
    if isinstance(told, Verdict):
        return told
    found, finished = told
    cases = [(15, 0), (15, 8), (15, 15), (0, 10), (4, 13)]
    formula = same_function(found, share_left, cases, "")
    if not formula.passed:
        return formula
    runs = alike(finished, "resident", 0, 8)
    if not runs or not link_bytes(runs[0]):
        return Verdict(
            False, "the formula is right; now run resident 0 and resident 8, nothing else changed, "
            "with some layers offloaded",
        )  # fmt: skip
    counted = link_bytes(runs[8]) / link_bytes(runs[0])
    predicted = share_left(runs[0].setting.config.policy.on_chip, 8)
    return Verdict(
        math.isclose(counted, predicted, rel_tol=0.02),
        f"the formula says {predicted:.1%} for your runs, {counted:.1%} was counted.",
    )


def kept_guesses(a: float, gamma: int) -> float:
    """Expected length of the run of right guesses at the front of ``gamma`` of them."""
    return sum(a**place for place in range(1, gamma + 1))


def check_kept(found: Any) -> Verdict:
    """A function of acceptance and gamma gives the expected number of kept guesses."""
    cases = [(0.5, 1), (0.8, 8), (0.8, 16), (1.0, 4), (0.0, 4)]
    return same_function(found, kept_guesses, cases, "a sum of powers, which levels off.")


def _function_and_runs(answer: Any) -> tuple[Any, list[RunRecord]] | Verdict:
    """A learner's function and the finished runs, at least one."""
    if not isinstance(answer, tuple) or len(answer) != 2 or not callable(answer[0]):
        return Verdict(False, "give (your function, panel.records)")
    if not isinstance(answer[1], list):
        return Verdict(False, "give (your function, panel.records)")
    finished = [one for one in answer[1] if one.finished]
    if not finished:
        return Verdict(False, "there is no finished run on the panel yet")
    return answer[0], finished


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "what the panel counts",
        check_bytes,
        "Two sums over the rounds, and a quotient: what crossed, and what was settled.",
        "The first sum is sum(t.bytes for one in rounds for t in one.transfers).",
    ),
    "e2": Exercise(
        "the share that is left",
        check_left,
        "Count layers: which of the 30 travel with no resident one, and which with some?",
        "With resident 0, 30 - on_chip layers travel in each round. Each resident one is one less.",
    ),
    "e3": Exercise(
        "how many guesses are kept",
        check_kept,
        "An expected number is a sum of chances. With what chance is guess number k kept?",
        "The first guess is kept with chance a, the second with a * a.",
    ),
}
