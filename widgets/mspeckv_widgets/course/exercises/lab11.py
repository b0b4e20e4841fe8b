"""B2, output length: rounds, averages over few of them, and a choice that is never renewed."""

from __future__ import annotations

from typing import Any

from mspeckv_widgets.course.answers import near, same_function
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.results import load_results


def rounds(tokens: int, accepted: float) -> float:
    """Tier-2 passes for so many tokens: each settles what it accepts and one of its own."""
    return tokens / (accepted + 1)


def check_rounds(found: Any) -> Verdict:
    """A function of tokens and acceptance gives rounds."""
    cases = [(16, 3.0), (64, 5.4), (128, 0.0), (2048, 7.67)]
    return same_function(found, rounds, cases, "16 tokens are only a handful of rounds.")


def check_lasting(found: Any) -> Verdict:
    """The speed-up over triforce at the longest output over that at the shortest."""
    table = load_results("B2").table
    ends = [table.compare(value, "mspeckv", "triforce") for value in table.values]
    known = [one.speedup.mean for one in ends if one is not None]
    if len(known) < 2:
        return Verdict(False, "these results have fewer than two lengths of both methods")
    told = f"from {known[0]:.2f}x to {known[-1]:.2f}x; published, 1.37x to 1.61x."
    return near(found, known[-1] / known[0], 0.02, told)


def check_spread(found: Any) -> Verdict:
    """Standard deviation over mean of mspeckv's speed, by length."""
    table = load_results("B2").table
    right = {
        value: speed.std / speed.mean
        for value in table.values
        if (speed := table.cells[value, "mspeckv"].speed) is not None and speed.std is not None
    }
    if not isinstance(found, dict) or set(found) != set(right):
        return Verdict(False, f"a dictionary with the keys {sorted(right)} is asked for")
    for value, share in right.items():
        verdict = near(found[value], share, 0.02, "")
        if not verdict.passed:
            return Verdict(False, f"at {value} new tokens, {verdict.message}")
    widest = max(right, key=lambda value: right[value])
    return Verdict(True, f"seeds differ most at {widest} new tokens, by {right[widest]:.0%}.")


def check_acceptance(found: Any) -> Verdict:
    """Guesses kept per round at the longest output, less those at the shortest."""
    table = load_results("B2").table
    means = [table.cells[value, "mspeckv"].accepted for value in table.values]
    known = [one.mean for one in means if one is not None]
    if len(known) < 2:
        return Verdict(False, "these results have fewer than two lengths of mspeckv")
    told = "tier 1 chose its chunks once, after the prompt; what it adds to them is the output."
    return near(found, known[-1] - known[0], 0.03, told)


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "rounds for a number of tokens",
        check_rounds,
        "A tier-2 pass settles the guesses that it accepts, and one token that is its own.",
    ),
    "e2": Exercise(
        "whether the gain lasts",
        check_lasting,
        "table.compare(value, 'mspeckv', 'triforce').speedup.mean, at the last value over that at "
        "the first.",
    ),
    "e3": Exercise(
        "spread by length",
        check_spread,
        "table.cells[value, 'mspeckv'].speed has mean and std; divide, for each of table.values.",
    ),
    "e4": Exercise(
        "acceptance as the output grows",
        check_acceptance,
        "table.cells[value, 'mspeckv'].accepted.mean at the last value less that at the first.",
    ),
}
