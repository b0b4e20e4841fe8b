"""Checkers of lab 05: wrong answers get a reason, right ones pass."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from mspeckv import KVPolicy, Profile, Sampling, profile
from mspeckv_study.profiling import Bar, Ceilings
from mspeckv_widgets.course.exercise import Verdict, find_exercises, judge
from mspeckv_widgets.course.exercises.lab05 import own_times
from mspeckv_widgets.panels.profile_view import longest_rest
from tests.random_models import random_pair, random_prompt

CEILINGS = Ceilings("cpu", "2", 5.0, 5.0, 10.0, 100.0, 2.0, 0.0)


def verdict(name: str, answer: Any) -> Verdict:
    return judge(find_exercises("05_profiler")[name], answer)


def look(ahead: int = 2, **options: Any) -> Profile:
    """Four float layers of which each takes about as long to cross as guessing takes."""
    return profile(
        random_pair(), random_prompt(200), overhead=False, memory=False, link=0.005, new_tokens=10,
        policy=KVPolicy("full", block=16, ahead=ahead), sampling=Sampling(0, stop_at_eos=False),
        **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def streamed() -> Profile:
    return look()


def with_bars(base: Profile, ahead: int, bars: list[Bar]) -> Any:
    """A profile that shows the given bars in each round, and says that it had so many slots."""
    config = base.summary.config
    told = {**config, "policy": {**config["policy"], "ahead": ahead}}

    class Told(Profile):
        def timeline(self, index: int) -> tuple[Bar, ...]:
            return tuple(bars)

    fields = {name: getattr(base, name) for name in base.__dataclass_fields__}
    return Told(**{**fields, "summary": replace(base.summary, config=told)})


def round_of(starts: list[float], check: float) -> list[Bar]:
    moved = [Bar("link", f"verify, layer {i}", at, 10, 0, 2, 99) for i, at in enumerate(starts)]
    return [*moved, Bar("compute", "tier2/verify", check, 50, 0, 2)]


def test_the_longest_rest() -> None:
    assert verdict("e2", longest_rest).passed

    def in_given_order(bars: Any) -> float:
        moved = [bar for bar in bars if bar.lane == "link"]
        pairs = pairwise(moved)
        return max((b.start_ms - a.start_ms - a.ms for a, b in pairs), default=0.0)

    assert not verdict("e2", in_given_order).passed

    def without_overlap(bars: Any) -> float:
        moved = sorted((bar.start_ms, bar.ms) for bar in bars if bar.lane == "link")
        pairs = pairwise(moved)
        return float(max(b[0] - a[0] - a[1] for a, b in pairs))

    assert not verdict("e2", without_overlap).passed
    assert "no answer yet" in verdict("e2", lambda bars: ...).message


def test_a_hole_is_filled_by_slots_and_not_by_more_than_it_takes(streamed: Profile) -> None:
    hole = with_bars(streamed, 2, round_of([0, 10, 60, 70], 60))
    # both runs are told, so that no clock of this machine's has a say
    filled = with_bars(streamed, 7, round_of([0, 10, 20, 30, 40, 50, 60], 60))
    found = verdict("e3", (hole, filled))
    assert found.passed, found.message
    assert found.score is not None
    assert (found.score.kind, found.score.less_is_better) == ("emulated", True)
    still = verdict("e3", (hole, hole))
    assert "rests for up to 40 ms" in still.message
    wasteful = with_bars(streamed, 30, round_of([0, 10, 20, 30, 40, 50, 60], 60))
    assert "more than that takes" in verdict("e3", (hole, wasteful)).message


def test_only_the_slots_may_differ(streamed: Profile) -> None:
    other = look(4, method="vanilla")
    assert "more than `ahead`" in verdict("e3", (streamed, other)).message
    assert "give" in verdict("e3", streamed).message
    assert "give" in verdict("e3", (streamed, 3)).message


def test_a_real_prefetch_fills_the_hole(streamed: Profile) -> None:
    """What has crossed before the check begins: an order, which no busy machine changes."""

    def early(profile: Profile) -> int:
        bars = profile.timeline(0)
        check = next(bar.start_ms for bar in bars if bar.name == "tier2/verify")
        return sum(bar.lane == "link" and bar.start_ms < check for bar in bars)

    ahead = look(4)
    assert ahead.summary.link.to_device_bytes == streamed.summary.link.to_device_bytes
    assert (early(streamed), early(ahead)) == (2, 4)


def test_own_times_are_the_profiles_own(streamed: Profile) -> None:
    spent: dict[str, float] = defaultdict(float)
    for place in range(len(streamed.rounds)):
        for name, ms in own_times(streamed.timeline(place)).items():
            spent[name] += ms
    rows: dict[str, float] = defaultdict(float)
    for row in streamed.rows:
        rows[row.step] += row.self_ms
    assert spent["kv/fetch"] > 0
    for name, ms in spent.items():
        assert ms == pytest.approx(rows[name], abs=1e-3), name
    found = verdict("e1", (streamed, own_times))
    assert found.passed, found.message
    assert f"kv/fetch has {spent['kv/fetch'] / streamed.wall_ms:.0%}" in found.message


def test_a_time_is_counted_once(streamed: Profile) -> None:
    def total(bars: Any) -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        for bar in bars:
            if bar.lane == "compute":
                found[bar.name] += bar.ms
        return found

    whole = verdict("e1", (streamed, total))
    assert "'a' has 5 ms of its own, not 10" in whole.message
    assert whole.attempt is not None
    assert whole.attempt.place is not None
    assert "return found" in whole.attempt.place.text

    def outermost(bars: Any) -> dict[str, float]:
        """Takes what is two deep from the outermost as well."""
        found: dict[str, float] = defaultdict(float)
        outer = ""
        for bar in sorted(bars, key=lambda one: (one.start_ms, one.depth)):
            if bar.lane == "compute":
                found[bar.name] += bar.ms
                if bar.depth:
                    found[outer] -= bar.ms
                else:
                    outer = bar.name
        return found

    assert "not" in verdict("e1", (streamed, outermost)).message
    assert not verdict("e1", (streamed, lambda bars: own_times(bars[::1]) | {"link": 1.0})).passed
    assert "a dict" in verdict("e1", (streamed, lambda bars: 3.0)).message
    assert "no answer yet" in verdict("e1", (streamed, lambda bars: ...)).message
    assert "give" in verdict("e1", 0.7).message


def test_the_ridge() -> None:
    assert verdict("e4", (CEILINGS, 10.0)).passed
    assert "too small" in verdict("e4", (CEILINGS, 0.1)).message
