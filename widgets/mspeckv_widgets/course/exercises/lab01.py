"""The live lab: numbers that are read off runs of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mspeckv_widgets.compared import link_bytes
from mspeckv_widgets.course.answers import near, same_function
from mspeckv_widgets.course.exercise import Exercise, Verdict
from mspeckv_widgets.record import RunRecord

Test = Callable[[RunRecord], bool]
_SHARE = 0.05
"""How far a number read off a table may be from the records'."""


def check_factor(answer: Any) -> Verdict:
    """By what guessing divided the link's bytes per token: two runs, and the learner's quotient."""
    runs = _two_runs(
        answer,
        ("autoregressive", lambda one: one.setting.config.method == "autoregressive"),
        ("mspeckv", lambda one: one.setting.config.method == "mspeckv"),
        blind_to=("method",),
    )
    if isinstance(runs, Verdict):
        return runs
    plain, guessed = runs
    if plain.setting.config.sampling.greedy and plain.tokens != guessed.tokens:
        return Verdict(False, "the two texts differ: were both runs finished, with one width?")
    if not link_bytes(guessed):
        return Verdict(False, "nothing crossed the link: leave some layers offloaded")
    right = link_bytes(plain) / link_bytes(guessed)
    return near(
        answer[1], right, _SHARE,
        f"{len(plain.rounds)} looks by tier 2 became {len(guessed.rounds)}, and the texts are one.",
    )  # fmt: skip


def check_left(answer: Any) -> Verdict:
    """Percent of the link's bytes left at resident 8, from two runs and the learner's number."""
    runs = _two_runs(
        answer,
        ("resident 0", lambda one: one.setting.config.policy.resident == 0),
        ("resident 8", lambda one: one.setting.config.policy.resident == 8),
        blind_to=("resident",),
    )
    if isinstance(runs, Verdict):
        return runs
    nothing, eight = runs
    if not link_bytes(nothing):
        return Verdict(False, "nothing crossed the link: leave some layers offloaded")
    right = 100 * link_bytes(eight) / link_bytes(nothing)
    why = "bytes fall with the share of layers that still travel, here 7 of 15 with preset A2."
    return near(answer[1], right, _SHARE, why)


def kept_guesses(a: float, gamma: int) -> float:
    """Expected length of the run of right guesses at the front of ``gamma`` of them."""
    return sum(a**place for place in range(1, gamma + 1))


def check_kept(found: Any) -> Verdict:
    """A function of acceptance and gamma gives the expected number of kept guesses."""
    cases = [(0.5, 1), (0.8, 8), (0.8, 16), (1.0, 4), (0.0, 4)]
    return same_function(found, kept_guesses, cases, "a sum of powers, which levels off.")


def _two_runs(
    answer: Any, first: tuple[str, Test], second: tuple[str, Test], blind_to: Sequence[str]
) -> tuple[RunRecord, RunRecord] | Verdict:
    """The newest two finished runs that differ as wanted and in nothing else."""
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[0], list):
        return Verdict(False, "give (panel.records, your number)")
    finished = [one for one in answer[0] if one.summary and not one.summary.cancelled]
    for name, wanted in (first, second):
        if not any(wanted(one) for one in finished):
            return Verdict(False, f"there is no finished run with {name} among the last ones")
    for one in filter(first[1], finished):
        for other in filter(second[1], finished):
            if _alike(one, blind_to) == _alike(other, blind_to):
                return one, other
    return Verdict(
        False, f"the runs with {first[0]} and {second[0]} differ in other settings too: one change"
        " at a time",
    )  # fmt: skip


def _alike(record: RunRecord, blind_to: Sequence[str]) -> object:
    """A run's setting with the named fields made equal."""
    config = record.setting.config
    if "method" in blind_to:
        config = replace(config, method="mspeckv")
    if "resident" in blind_to:
        config = replace(config, policy=replace(config.policy, resident=0))
    return replace(record.setting, config=config)


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "the factor between two runs' bytes",
        check_factor,
        "Run both methods at temperature 0 with the same width and placement; the number comes "
        "from the column link KB/token of the table Last runs.",
    ),
    "e2": Exercise(
        "what is left at resident 8",
        check_left,
        "Two runs, resident 0 and resident 8, nothing else changed. Divide their link KB/token "
        "and count in percent.",
    ),
    "e3": Exercise(
        "how many guesses are kept",
        check_kept,
        "The first guess is kept with chance a, the second with a * a. The expected number is the "
        "sum of the chances that guess 1, 2, ... gamma is kept.",
    ),
}
