"""A1, context length: what a speed-up is, what is shown, and which saving is whose."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, isclose, log
from statistics import fmean
from typing import Any

import numpy as np

from mspeckv_study.experiments import SQUARE
from mspeckv_widgets.course.answers import as_number, call, near, short, tried
from mspeckv_widgets.course.exercise import Exercise, StillOpen, Verdict, is_open
from mspeckv_widgets.results import load_results

LONGER = 3072
Times = dict[int, float]
Square = Mapping[tuple[str, str], float]
REPEATS: list[tuple[Times, Times]] = [
    ({1: 100.0, 2: 50.0}, {1: 50.0, 2: 100.0}),
    ({1: 8.0, 2: 9.0, 3: 10.0}, {3: 2.5, 1: 1.0, 2: 4.5}),
    ({5: 60.0, 6: 80.0, 7: 700.0}, {5: 30.0, 7: 350.0, 6: 50.0}),
]
"""Milliseconds per token, the slower variant's and the quicker one's, by repeat."""
INTERVALS = [
    (1.2, 1.3, 1.0, 1.0), (1.2, 1.3, 1.0, 1.25), (0.7, 0.8, 1.0, 1.2), (0.9, 1.3, 1.0, 1.0),
    (13.0, 13.8, 14.45, 1.02), (13.0, 14.2, 14.45, 1.04), (15.2, 16.0, 14.45, 1.02),
]  # fmt: skip
SQUARES: list[Square] = [
    {("plain", "streamed"): 240.0, ("plain", "kept"): 60.0,
     ("guessing", "streamed"): 80.0, ("guessing", "kept"): 40.0},
    {("plain", "streamed"): 100.0, ("plain", "kept"): 50.0,
     ("guessing", "streamed"): 25.0, ("guessing", "kept"): 12.5},
]  # fmt: skip


def geometric(theirs: Times, ours: Times) -> float:
    """Geometric mean of the repeats' ratios."""
    return exp(fmean(log(theirs[seed] / ours[seed]) for seed in ours))


def of_totals(theirs: Times, ours: Times) -> float:
    """Ratio of total times."""
    return sum(theirs.values()) / sum(ours.values())


def check_speedup(found: Any) -> Verdict:
    """A function of two variants' times by repeat; either of the two textbook answers holds."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    gave = [as_number(call(found, *case)) for case in REPEATS]
    if any(one is None for one in gave):
        return Verdict(False, "it returned something that is not a number")
    for right, name in ((geometric, "geometric mean"), (of_totals, "ratio of totals")):
        wanted = [right(*case) for case in REPEATS]
        if all(
            isclose(one or 0.0, two, rel_tol=1e-6) for one, two in zip(gave, wanted, strict=True)
        ):
            return Verdict(True, f"the {name}: turned round, it gives one over the same number.")
    there, back = as_number(call(found, *REPEATS[0])), as_number(call(found, *REPEATS[0][::-1]))
    assert there is not None
    if back is not None and not isclose(there * back, 1.0, rel_tol=1e-6):
        told = f"one way round it gives {there:.4g}, the other way {back:.4g}"
        return Verdict(False, f"with 100 and 50 ms against 50 and 100, {told}: not one over it")
    return Verdict(False, f"called with {short(REPEATS[1])}, it returned {gave[1]:.6g}")


def check_line(found: Any) -> Verdict:
    """Autoregressive's ms per token at a context that was not run, by a straight line."""
    table = load_results("A1").table
    cells = [table.cells.get((value, "autoregressive")) for value in table.values]
    times = {c.value: c.latency.centre for c in cells if c is not None and c.latency is not None}
    slope, start = np.polyfit(list(times), list(times.values()), 1)
    told = f"{slope * 1024:.0f} ms for each 1024 tokens of context, {start:.0f} ms whatever it is"
    told += ": less than nothing, since the newest tokens are not streamed." if start < 0 else "."
    return near(found, float(start + slope * LONGER), 0.05, told)


def judged(low: float, high: float, claimed: float, noise: float) -> str:
    """What an interval of a ratio says of a claim."""
    if low > claimed * noise:
        return "shown"
    return "contradicted" if high < claimed / noise else "not shown"


def check_verdict(found: Any) -> Verdict:
    """A function from an interval, a claim and a noise floor to one of three words."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    for case in INTERVALS:
        gave, right = call(found, *case), judged(*case)
        if gave != right:
            low, high, claimed, noise = case
            told = f"an interval from {low} to {high}, a claim of {claimed}, a noise of {noise}"
            seen = tried(found, case, short(gave), repr(right))
            return Verdict(
                False, f"{told}: it says {short(gave)}; {right!r} is right", attempt=seen
            )
    return Verdict(
        True, "an interval that holds the claim, or ends within the noise, says nothing."
    )


def effects(ms: Square) -> tuple[float, float, float]:
    """What guessing gives alone, what keeping gives alone, and both over the two's product."""
    start = ms["plain", "streamed"]
    guessing, keeping = start / ms["guessing", "streamed"], start / ms["plain", "kept"]
    return guessing, keeping, start / ms["guessing", "kept"] / (guessing * keeping)


def measured_square(value: int | None = None) -> dict[tuple[str, str], float]:
    """Median ms per token of the four corners; default: at the longest context.

    Raises:
        ValueError: a corner is missing.
    """
    table = load_results("A1").table
    at = table.values[-1] if value is None else value
    cells = {corner: table.cells.get((at, name)) for corner, name in SQUARE.items()}
    times = {corner: cell.latency for corner, cell in cells.items() if cell is not None}
    found = {corner: time.centre for corner, time in times.items() if time is not None}
    if len(found) < len(SQUARE):
        raise ValueError(f"these results lack some of {', '.join(SQUARE.values())}")
    return found


def check_effects(found: Any) -> Verdict:
    """A function that takes a square of times apart."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    for square in (*SQUARES, measured_square()):
        gave, right = call(found, dict(square)), effects(square)
        if is_open(gave):
            raise StillOpen
        if not isinstance(gave, (tuple, list)) or len(gave) != len(right):
            return Verdict(False, f"three numbers are asked for, this is {short(gave)}")
        names = "guessing alone", "keeping alone", "both over the product"
        for name, one, wanted in zip(names, gave, right, strict=True):
            verdict = near(one, wanted, 1e-6, "")
            if not verdict.passed:
                times = ", ".join(f"{' '.join(corner)} {ms:g}" for corner, ms in square.items())
                seen = tried(found, (dict(square),), short(gave), short(right))
                message = f"of {times} ms: {name}, {verdict.message}"
                return Verdict(False, message, attempt=seen)
    told = f"at the longest context both together give {right[2]:.2f} of the product"
    return Verdict(True, f"{told}: below 1 the two save partly the same waits.")


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "a speed-up that does not care which variant is on top",
        check_speedup,
        "Try it on two repeats, 100 and 50 ms against 50 and 100. What does the mean of the ratios "
        "say, and what does it say when you swap the two?",
        "Either divide total times, or average the logarithms of the repeats' ratios and take exp.",
    ),
    "e2": Exercise(
        "autoregressive at a context that nobody ran",
        check_line,
        "Its time per token is a part that does not depend on the context, plus one that is "
        "proportional to it.",
        "numpy.polyfit(contexts, times, 1) gives slope and start.",
    ),
    "e3": Exercise(
        "what an interval says of a claim",
        check_verdict,
        "Three things may be: the whole interval lies above the claim, the whole lies below it, or "
        "neither. Then make room for the noise on both sides.",
        "Compare `low` with `claimed * noise` and `high` with `claimed / noise`.",
    ),
    "e4": Exercise(
        "guessing and keeping, told apart",
        check_effects,
        "Change one thing at a time, from the corner where neither is done. Then ask what both "
        "together would give if they had nothing to do with each other.",
        'guessing = ms["plain", "streamed"] / ms["guessing", "streamed"]; keeping likewise; the '
        "third number is the whole gain over guessing * keeping.",
    ),
}
