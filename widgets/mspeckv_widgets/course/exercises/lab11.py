"""B2, output length: rounds, what the last one wastes, and how many repeats show a change."""

from __future__ import annotations

from math import ceil
from typing import Any

from mspeckv_study.experiments.intervals import Ratio, coverage
from mspeckv_widgets.course.answers import near, same_function, short
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.results import load_results


def rounds(tokens: int, accepted: float) -> float:
    """Tier-2 passes for so many tokens: each settles what it accepts and one of its own."""
    return tokens / (accepted + 1)


def check_rounds(found: Any) -> Verdict:
    """A function of tokens and acceptance gives rounds."""
    cases = [(16, 3.0), (64, 5.4), (128, 0.0), (2048, 7.67)]
    return same_function(found, rounds, cases, "16 tokens are only a handful of rounds.")


def used(tokens: int, settled: int) -> float:
    """Share of what the rounds would settle that the output needs."""
    return tokens / (ceil(tokens / settled) * settled)


def check_used(found: Any) -> Verdict:
    """A function tells how much of the rounds' work an output of some length uses."""
    cases = [(16, 9), (16, 5), (128, 9), (9, 9), (10, 9), (2048, 9)]
    told = "a longer output wastes less on its last round: a speed-up can grow for that alone."
    return same_function(found, used, cases, told)


def change() -> Ratio | None:
    """The speed-up over triforce at the longest output over that at the shortest, by repeat."""
    table = load_results("B2").table
    ends = list(table.along("mspeckv", "triforce").values())
    return ends[-1].over(ends[0]) if len(ends) > 1 else None


def check_change(found: Any) -> Verdict:
    """Ends of the interval of a change, and what it shows."""
    right = change()
    if right is None:
        return Verdict(False, "these results have fewer than two lengths of both methods")
    if not isinstance(found, (tuple, list)) or len(found) != len("lhv"):
        return Verdict(False, f"(low, high, verdict) is asked for, this is {short(found)}")
    for name, one, wanted in zip(("low", "high"), found, right.interval, strict=False):
        verdict = near(one, wanted, 0.005, "")
        if not verdict.passed:
            return Verdict(False, f"{name}: {verdict.message}")
    noise = load_results("B2").noise.factor
    said = {right.verdict(noise=noise), right.verdict()}
    if found[2] not in said:
        return Verdict(False, f"the interval does not say {short(found[2])}")
    with_noise = f"with a noise floor of {noise - 1:.0%}: {right.verdict(noise=noise)}"
    return Verdict(True, f"{right.text()}; that it grows is {right.verdict()}, {with_noise}.")


def fewest(confidence: float) -> int:
    """Repeats of which the whole range holds the median so often."""
    return next(count for count in range(2, 200) if coverage(count, 1) >= confidence)


def check_fewest(found: Any) -> Verdict:
    """A function gives the fewest repeats that can show anything."""
    cases = [(0.5,), (0.75,), (0.9,), (0.95,), (0.99,), (0.999,)]
    told = "three repeats hold the median in 75 %: their range is no interval of 95 %."
    return same_function(found, fewest, cases, told)


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "rounds for a number of tokens",
        check_rounds,
        "A tier-2 pass settles the guesses that it accepts, and one token that is its own.",
    ),
    "e2": Exercise(
        "what the last round wastes",
        check_used,
        "An output ends in the middle of a round, which was paid for as a whole.",
        "How many rounds are begun (math.ceil), and how many tokens would they settle?",
    ),
    "e3": Exercise(
        "whether the gain changes",
        check_change,
        "Whether two intervals overlap does not tell: ask of each repeat how much its speed-up "
        "changed. That gives ten numbers, and they have an interval.",
        "table.compare(value, 'mspeckv', 'triforce').by_seed at both ends; divide seed by seed, "
        "sort, and take the second least and the second largest of ten.",
    ),
    "e4": Exercise(
        "the fewest repeats that show anything",
        check_fewest,
        "The range misses the median when all repeats fall on one side of it.",
        "That happens in 2 of 2**n cases.",
    ),
}
