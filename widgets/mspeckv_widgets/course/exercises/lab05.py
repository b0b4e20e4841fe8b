"""The profiler: time of one's own, the link's longest rest, a prefetch, and ceilings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from mspeckv import Profile
from mspeckv_study.profiling import Bar, Ceilings
from mspeckv_widgets.course.answers import (
    as_number,
    call,
    near,
    same_function,
    short,
    starts_with,
    tried,
)
from mspeckv_widgets.course.exercise import Exercise, Score, Verdict
from mspeckv_widgets.panels.profile_view import longest_rest

_TO_SPARE = 4
"""Slots above the least that are forgiven: a round's guessing takes now more, now less."""
_MOST = 0.75
"""Share of the slots that fill the hole which counts as filling it: lengths of rounds differ."""


def own_times(bars: Sequence[Bar]) -> dict[str, float]:
    """By name, the milliseconds on the compute lane that lie in no bar inside."""
    found: dict[str, float] = defaultdict(float)
    around: dict[int, str] = {}
    computed = [bar for bar in bars if bar.lane == "compute"]
    # a bar may begin with the one around it
    for bar in sorted(computed, key=lambda one: (one.start_ms, one.depth)):
        found[bar.name] += bar.ms
        if bar.depth:
            found[around[bar.depth - 1]] -= bar.ms
        around[bar.depth] = bar.name
    return dict(found)


def check_own(answer: Any) -> Verdict:
    """A function of a round's bars gives each step's own time; then a profile is its judge too."""
    if not starts_with(answer, 2, Profile) or not callable(answer[1]):
        return Verdict(False, "give (streamed, your function)")
    profile, found = answer
    rounds = [profile.timeline(place) for place in range(len(profile.rounds))]
    for bars in (*NESTED, *rounds):
        wrong = _own_judged(found, bars)
        if wrong is not None:
            return wrong
    spent: dict[str, float] = defaultdict(float)
    for bars in rounds:
        for name, ms in own_times(bars).items():
            spent[name] += ms
    waits = spent["kv/fetch"] / profile.wall_ms
    return Verdict(
        True,
        f"over {len(rounds)} rounds {sum(spent.values()):.0f} of {profile.wall_ms:.0f} ms have an "
        f"owner, and kv/fetch has {waits:.0%} of the wall time (measured).",
    )


def _own_judged(found: Any, bars: Sequence[Bar]) -> Verdict | None:
    """What is wrong with an answer for some bars, if anything is."""
    gave, right = call(found, list(bars)), own_times(bars)
    if not isinstance(gave, Mapping):
        return Verdict(False, f"a dict of milliseconds by name is asked for, this is {short(gave)}")
    for name in sorted({*right, *gave}):
        ms, wanted = as_number(gave.get(name)), right.get(name)
        if wanted is not None and ms is not None and math.isclose(ms, wanted, abs_tol=1e-6):
            continue
        should = "should not be there" if wanted is None else f"has {wanted:.6g} ms of its own"
        seen = tried(found, (list(bars),), short(gave), short(right))
        return Verdict(False, f"{name!r} {should}, not {short(gave.get(name))}", attempt=seen)
    return None


def _spent(name: str, start: float, ms: float, depth: int = 0) -> Bar:
    return Bar("compute", name, start, ms, depth, 2)


NESTED = (
    [_spent("a", 0, 10), _spent("b", 2, 3, 1), _spent("b", 6, 2, 1)],
    [_spent("a", 0, 10), _spent("b", 1, 8, 1), _spent("c", 2, 4, 2), _spent("a", 20, 5)],
    [_spent("c", 12, 1, 1), _spent("b", 11, 4), _spent("a", 0, 10), _spent("c", 3, 2, 1)],
    [_spent("a", 0, 10), _spent("b", 0, 10, 1), Bar("link", "verify, layer 1", 0, 9, 0, 2, 1000)],
)
"""Bars in one another: two inside, two deep, in another order, as long as what is around them."""


def check_rest(found: Any) -> Verdict:
    """A function finds the longest rest of the link among a timeline's bars."""
    cases = [
        [_moved(0, 10), _moved(10, 10), _moved(50, 10), _moved(60, 10)],
        [_moved(90, 10), _moved(0, 10), _moved(40, 10)],
        [_moved(5, 40), _moved(10, 5), _moved(60, 5)],
        [_moved(0, 10), Bar("compute", "tier1/verify", 10, 30, 0, 1), _moved(45, 5)],
        [_moved(7, 10), _moved(17, 10)],
    ]
    why = "so long the link could have carried something, and did not."
    return same_function(found, longest_rest, [(case,) for case in cases], why)


def _moved(start: float, ms: float) -> Bar:
    return Bar("link", "verify, layer 3", start, ms, 0, 2, 1000)


def check_filled(answer: Any) -> Verdict:
    """A profile whose prefetch leaves the link no rest, with no more slots than that takes."""
    kinds = isinstance(answer, tuple) and [isinstance(part, Profile) for part in answer]
    if kinds != [True, True]:
        return Verdict(False, "give (streamed, what look(bits='full', ahead=...) returned)")
    before, after = answer
    if _without_ahead(before) != _without_ahead(after):
        return Verdict(False, "the two runs differ in more than `ahead`: change that alone")
    moved = [bar for bar in _link(after) if bar.bytes]
    if not moved:
        return Verdict(False, "nothing crossed the link in this run: use the streamed setting")
    ahead = int(after.summary.config["policy"]["ahead"])
    # how much fits is read from the run that has the hole, as a learner does: a machine that
    # stumbles in the second run makes no wrong answer of a right one
    crossing = [bar.ms for bar in _link(before) if bar.bytes]
    transfer = median(crossing or [bar.ms for bar in moved])
    enough = [_slots(before, place, transfer) for place in range(len(before.rounds))]
    rest = median(longest_rest(after.timeline(place)) for place in range(len(after.rounds)))
    told = f"ahead={ahead}: the link rests for up to {rest:.0f} ms in the usual round"
    if ahead < _MOST * median(enough):
        return Verdict(False, f"{told} (measured); one transfer takes {transfer:.0f} ms")
    if ahead > max(enough) / _MOST + _TO_SPARE:
        why = f"guessing lasts as long as {max(enough)} transfers; each slot costs device memory"
        return Verdict(False, f"{told}, but {ahead} slots are more than that takes: {why}")
    waits = [_wait_per_token(one) for one in (before, after)]
    return Verdict(
        True,
        f"{told}, and compute waits {waits[1]:.0f} ms per token, {waits[0]:.0f} before (emulated).",
        Score(round(waits[1], 1), "ms of waiting per token", "emulated", less_is_better=True),
    )


def _slots(profile: Profile, place: int, transfer: float) -> int:
    """Transfers that fit between a round's first one and tier 2's pass."""
    bars = profile.timeline(place)
    first = min((bar.start_ms for bar in bars if bar.lane == "link" and bar.bytes), default=0.0)
    check = [bar.start_ms for bar in bars if bar.name.startswith("tier2")]
    return math.ceil((check[0] - first) / transfer) + 1 if check else 1


def _link(profile: Profile) -> list[Bar]:
    rounds = range(len(profile.rounds))
    return [bar for place in rounds for bar in profile.timeline(place) if bar.lane == "link"]


def _wait_per_token(profile: Profile) -> float:
    waited = sum(row.self_ms for row in profile.rows if row.step == "kv/fetch")
    return waited / sum(len(one.tokens) for one in profile.rounds)


def _without_ahead(profile: Profile) -> dict[str, Any]:
    config = profile.summary.config
    policy = {name: value for name, value in config["policy"].items() if name != "ahead"}
    return {**config, "policy": policy}


def check_ridge(answer: Any) -> Verdict:
    """Operations per byte at which the two ceilings meet."""
    if not starts_with(answer, 2, Ceilings):
        return Verdict(False, "give (ceilings, your number)")
    right = answer[0].matrix_gflops / answer[0].memory_gbps
    return near(answer[1], right, 0.02, "left of it memory is the limit, right of it arithmetic.")


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "whose time it is",
        check_own,
        "A bar's time is its step's, less what lies directly inside it. Whose is a bar of depth 1: "
        "which bar of depth 0 began last before it?",
        "Go through the bars of the compute lane by (start_ms, depth). Add each bar's ms to its "
        "name; take it from the name of the latest bar that is one less deep.",
    ),
    "e2": Exercise(
        "how long the link rests",
        check_rest,
        "Rests lie between transfers: between where one ends, start_ms + ms, and where the next "
        "begins. The bars of a timeline come in no promised order.",
        'Take the bars with lane == "link" and bytes, sorted by start_ms. Go through them with the '
        "latest end so far in a variable.",
    ),
    "e3": Exercise(
        "fill the hole",
        check_filled,
        "The transfers that begin before the guessing should last as long as the guessing does. "
        "Read both lengths from the timeline.",
        "Divide: the milliseconds from a round's first transfer to tier 2's pass, by those of one "
        'transfer. So many layers may be on their way; then look(bits="full", ahead=so_many).',
    ),
    "e4": Exercise(
        "where the ceilings meet",
        check_ridge,
        "Under the slope a machine does memory_gbps * x GFLOP/s at x operations per byte. Where "
        "is that as much as its arithmetic reaches?",
        "Set memory_gbps * x equal to matrix_gflops, and solve for x.",
    ),
}
