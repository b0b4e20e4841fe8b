"""A1, context length: what grows, what does not, and what the control gets for nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from mspeckv_widgets.course.answers import near, same_function, short
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.results import load_results

LONGER = 3072


def mean_speedup(ours: dict[int, float], theirs: dict[int, float]) -> float:
    """Mean over seeds of the ratio of tokens per second."""
    return float(np.mean([ours[seed] / theirs[seed] for seed in ours]))


def check_speedup(found: Any) -> Verdict:
    """A function pairs two methods' speeds by seed."""
    table = load_results("A1").table
    cases = [({1: 8.0, 2: 9.0, 3: 10.0}, {3: 2.5, 1: 1.0, 2: 4.5})]
    for value in table.values:
        ours, theirs = (table.cells[value, name] for name in ("mspeckv", "autoregressive"))
        cases.append((ours.speeds, theirs.speeds))
    why = "a seed's two runs were neighbours in time, so what slowed the machine cancels."
    return same_function(found, mean_speedup, cases, why)


def check_line(found: Any) -> Verdict:
    """Autoregressive's ms per token at a context that was not run, by a straight line."""
    table = load_results("A1").table
    places = [v for v in table.values if table.speed(v, "autoregressive") is not None]
    times = [table.cells[v, "autoregressive"].latency for v in places]
    slope, start = np.polyfit(places, [time.mean for time in times if time is not None], 1)
    told = f"{slope * 1024:.0f} ms for each 1024 tokens of context, {start:.0f} ms whatever it is."
    return near(found, float(start + slope * LONGER), 0.05, told)


def check_control(found: Any) -> Verdict:
    """The control's speed over mspeckv's at the longest context."""
    table = load_results("A1").table
    pair = table.compare(table.values[-1], "control", "mspeckv")
    if pair is None:
        return Verdict(False, "these results have no control at the longest context")
    told = "so much of the gain is memory on the device, whatever the method."
    return near(found, pair.speedup.mean, 0.03, told)


def check_contexts(found: Any) -> Verdict:
    """The contexts at which ours is at least the published speed-up over triforce."""
    match = load_results("A1")
    right = []
    for value in match.table.values:
        ours = match.table.compare(value, "mspeckv", "triforce")
        paper = match.speedup(value, "mspeckv", "triforce")
        if ours is not None and paper is not None and ours.speedup.mean >= paper.mean:
            right.append(value)
    if not isinstance(found, (list, tuple, set)):
        return Verdict(False, f"a list of contexts is asked for, this is {short(found)}")
    if sorted(found) != right:
        missed = len(set(right) - set(found))
        extra = len(set(found) - set(right))
        return Verdict(False, f"{missed} missing, {extra} that do not belong")
    return Verdict(True, f"{len(right)} of {len(match.table.values)} contexts.")


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "a speed-up that pairs runs by seed",
        check_speedup,
        "Both arguments are dictionaries from seed to tokens/s, in any order. Divide seed by seed, "
        "then take the mean of the ratios, not the ratio of the means.",
    ),
    "e2": Exercise(
        "autoregressive at a context that nobody ran",
        check_line,
        "Its time per token is a part that does not depend on the context, plus one that is "
        "proportional to it. numpy.polyfit(contexts, times, 1) gives slope and start.",
    ),
    "e3": Exercise(
        "what the control gets",
        check_control,
        "table.compare(value, 'control', 'mspeckv') at the last of table.values.",
    ),
    "e4": Exercise(
        "where the published gain over triforce is reached",
        check_contexts,
        "match.speedup(value, 'mspeckv', 'triforce').mean is the published one, and "
        "match.table.compare(value, 'mspeckv', 'triforce').speedup.mean is ours.",
    ),
}
