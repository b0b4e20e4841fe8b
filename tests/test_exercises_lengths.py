"""Checkers of lab 13: wrong answers get a reason, right ones pass."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from mspeckv_widgets.at_length import Series
from mspeckv_widgets.course.exercise import Verdict, find_exercises, judge
from mspeckv_widgets.course.exercises import lab13
from mspeckv_widgets.course.exercises.lab03 import tokens_per_round
from mspeckv_widgets.guess_probe import GuessProbe, Kept
from tests.random_models import random_pair, random_prompt
from tests.test_at_length import row

PAIR = random_pair()


def verdict(name: str, answer: Any) -> Verdict:
    return judge(find_exercises("13_long_context_drafts")[name], answer)


def test_every_exercise_has_two_hints() -> None:
    assert all(one.hint and one.step for one in lab13.EXERCISES.values())


def test_the_mask_of_sinks_and_window() -> None:
    right = verdict("e1", lambda q, k, s, w: (k <= q) & ((k < s) | (q - k < w)))
    assert right.passed
    later = verdict("e1", lambda q, k, s, w: (k < s) | (q - k < w))
    assert later.message == "2 sinks, window 4: the token at 0 does not see that at 1"
    short = verdict("e1", lambda q, k, s, w: (k <= q) & ((k < s) | (q - k <= w)))
    assert "does not see" in short.message
    no_sinks = verdict("e1", lambda q, k, s, w: (k <= q) & (q - k < w))
    assert no_sinks.message == "2 sinks, window 4: the token at 4 sees that at 0"
    assert "a tensor of truths" in verdict("e1", lambda q, k, s, w: 1).message
    assert "no answer yet" in verdict("e1", lambda q, k, s, w: ...).message


class Draft:
    """A probe of 700 tokens whose draft dies of any token that is 512 or further off."""

    def __init__(self) -> None:
        self.tokens = [0] * 700

    def reading_what(self, sees: Any) -> Kept:
        place = torch.arange(700)
        query, key = place[:, None], place[None, :]
        seen = sees(query, key) & (key <= query)
        far = bool((seen & (query - key >= 512)).any())
        rate = torch.full((4,), 0.1 if far else 0.5 if seen.sum() > 700 * 100 else 0.2).numpy()
        return Kept(rate, rate)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(lab13, "GuessProbe", Draft)
    return Draft()


def test_few_tokens_that_kill(probe: Any) -> None:
    one_far = verdict("e2", (probe, lambda q, k: (q - k < 128) | (k < 1)))
    assert one_far.passed
    assert one_far.score is not None
    assert one_far.score.value == 129
    assert one_far.score.less_is_better
    alive = verdict("e2", (probe, lambda q, k: q - k < 256))
    assert "the draft lives" in alive.message
    many = verdict("e2", (probe, lambda q, k: q - k < 600))
    assert "some token sees 600 others; 256 are allowed" in many.message
    blind = verdict("e2", (probe, lambda q, k: q - k < 64))
    assert "must see the latest 128" in blind.message
    assert "no answer yet" in verdict("e2", (probe, lambda q, k: ...)).message
    assert not verdict("e2", 5).passed


def test_a_mask_is_judged_on_a_real_probe() -> None:
    found = GuessProbe.of(PAIR, random_prompt(300), 16)
    told = verdict("e2", (found, lambda q, k: (q - k < 128) | (k < 1)))
    assert "acceptance 0." in told.message or told.passed


def test_the_acceptance_that_pays() -> None:
    assert verdict("e3", lab13.needed_acceptance).passed
    assert lab13.needed_acceptance(1, 0.3) == pytest.approx(0.3)
    wrong = verdict("e3", lambda gamma, cost: cost)
    assert "it returned 0.1; 0.287108 is right" in wrong.message


def test_three_tiers() -> None:
    assert verdict("e4", lab13.three_tiers).passed
    # nothing is guessed right: an inner round per token, and one token per pass
    assert lab13.three_tiers(0.1, 0.5, 0.0, 0.0, 2, 4) == pytest.approx(4 * 0.7 + 1)
    assert lab13.three_tiers(0.0, 0.0, 0.5, 1.0, 2, 4) == pytest.approx(1 / 5)
    one_pass = verdict("e4", lambda d, t, i, o, dg, g: (dg * d + t + 1) / tokens_per_round(o, g))
    assert not one_pass.passed


def test_passes_cost_what_they_read() -> None:
    short, long = (lab13.PassCosts.of(PAIR, at, 64) for at in (100, 1500))
    assert 0 < long.draft < short.draft < short.tier1 <= 1
    assert long.tier1 < short.tier1
    assert lab13.PassCosts.of(PAIR, 50, 64).tier1 == 1
    everything = lab13.PassCosts.of(PAIR, 1500, 64, draft_sees=1500)
    assert everything.draft > long.draft


@pytest.fixture
def series() -> Series:
    names = ("tier 1, 64", "tier 1, 128", "draft for tier 1, 64", "draft for tier 1, 128")
    rates = dict(zip(names, (0.9, 0.95, 0.5, 0.5), strict=True))
    rates |= {"draft, all": 0.0, "draft, sinks and window": 0.5}
    return Series(tuple(row(at, 1024, "own", **rates) for at in range(6)))


def test_the_best_plan(series: Series) -> None:
    assert lab13.budgets_of(series) == [64, 128]
    plans = list(product((64, 128), lab13.DRAFT_GAMMAS, lab13.GAMMAS))
    best = min(plans, key=lambda plan: lab13.planned(PAIR, series, *plan))
    right = verdict("e5", (PAIR, series, *best))
    assert right.passed
    assert right.score is not None
    assert right.score.kind == "modelled"
    worst = max(plans, key=lambda plan: lab13.planned(PAIR, series, *plan))
    assert "something else takes" in verdict("e5", (PAIR, series, *worst)).message
    assert "a budget of [64, 128]" in verdict("e5", (PAIR, series, 100, 2, 8)).message
    assert "no answer yet" in verdict("e5", (PAIR, series, ..., ..., ...)).message


def test_a_link_makes_acceptance_count(series: Series) -> None:
    near = lab13.speedups(PAIR, series, 1024, 128)
    far = lab13.speedups(PAIR, series, 1024, 128, link=1e6)
    assert near[lab13.PLAIN].median == 1
    # guesses that are never kept only cost
    assert near[lab13.FULL].median < 1
    # guesses that cost nothing settle 1 / (1 - a) tokens at most
    assert far[lab13.WINDOW].median == pytest.approx(2, abs=0.01)
    assert 2 < far[lab13.TIERS].median < 20
    assert near[lab13.WINDOW].median < far[lab13.WINDOW].median
