"""Checkers of labs 04 and 12: wrong answers get a reason, right ones pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mspeckv import (
    AttentionProbe,
    Event,
    KVPolicy,
    RunConfig,
    RunSummary,
    Sampling,
    Speculation,
    generate,
    retrieval,
    stream,
)
from mspeckv_widgets.course.exercise import Verdict, find_exercises, judge
from mspeckv_widgets.replay import Replay
from tests.random_models import random_pair, random_prompt

PAIR, PROMPT = random_pair(), random_prompt(200)
GUESS = Speculation(gamma=5, draft_gamma=2, budget=48, chunk=4, recent=8, window=8)
GREEDY = Sampling(0, stop_at_eos=False)


def verdict(lab: str, name: str, answer: Any) -> Verdict:
    return judge(find_exercises(lab)[name], answer)


@pytest.fixture(scope="module")
def probe() -> AttentionProbe:
    return AttentionProbe(PAIR, PROMPT)


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return list(
        stream(PAIR, PROMPT, RunConfig.build(new_tokens=30, speculation=GUESS, sampling=GREEDY))
    )


@pytest.fixture
def mine() -> Iterator[str]:
    retrieval.register("mine")(lambda q, marks, w: -retrieval.newest(q, marks, w))
    yield "mine"
    retrieval.unregister("mine")


def test_what_tier_0_sees() -> None:
    right = verdict("04_tiers", "e1", lambda p, n, s, w: p < s or p >= n - w)
    assert right.passed
    wrong = verdict("04_tiers", "e1", lambda p, n, s, w: p >= n - w)
    assert wrong.message == "position 0 of 40, 4 sinks, window 12: tier 0 sees it"
    assert not verdict("04_tiers", "e1", 5).passed
    assert "no answer yet" in verdict("04_tiers", "e1", lambda p, n, s, w: ...).message


def test_heads_that_keep_a_span(probe: AttentionProbe) -> None:
    report = probe.report(GUESS)
    right = int((report.seen(40, 44) > 0).sum())
    assert 0 < right < 8
    assert verdict("04_tiers", "e2", (report, (40, 44), right)).passed
    assert "too large" in verdict("04_tiers", "e2", (report, (40, 44), right + 1)).message
    assert "raised" in verdict("04_tiers", "e2", (report, (40, 40), right)).message
    assert "give" in verdict("04_tiers", "e2", right).message
    assert "no answer yet" in verdict("04_tiers", "e2", (report, (40, 44), ...)).message


def test_a_token_that_tier_1_put_right(events: list[Event]) -> None:
    found = {step.index + 1: verdict("04_tiers", "e3", (events, step.index + 1))
             for step in Replay.of(events).steps}  # fmt: skip
    passed = {number for number, one in found.items() if one.passed}
    assert passed
    assert len(passed) < len(found)
    for number in passed:
        step = Replay.of(events).steps[number - 1]
        assert step.settled_by == 1
        assert any(word.fate == "rejected" and word.tier == 0 for word in step.words)
    assert "numbered from 1 to 30" in verdict("04_tiers", "e3", (events, 0)).message


def test_the_least_budget(probe: AttentionProbe) -> None:
    budgets = range(48, 208, 8)
    passed = [b for b in budgets if verdict("04_tiers", "e4", (probe, b)).passed]
    assert len(passed) == 1
    assert "less than 90%" in verdict("04_tiers", "e4", (probe, passed[0] - 8)).message
    assert "do as well" in verdict("04_tiers", "e4", (probe, passed[0] + 8)).message
    assert "refused" in verdict("04_tiers", "e4", (probe, 8)).message
    assert "multiple of 8" in verdict("04_tiers", "e4", (probe, 50)).message


def run(**options: Any) -> RunSummary:
    wanted: dict[str, Any] = {
        "new_tokens": 20, "policy": KVPolicy(8, block=16), "sampling": GREEDY,
        "speculation": GUESS, **options,
    }  # fmt: skip
    return generate(PAIR, PROMPT, **wanted)


def test_the_same_tokens_by_another_target() -> None:
    plain, guessed = run(method="autoregressive"), run()
    assert verdict("12_your_own", "e1", (plain, guessed)).passed
    assert "autoregressive" in verdict("12_your_own", "e1", (guessed, plain)).message
    other = run(policy=KVPolicy(4, block=16))
    assert "one policy" in verdict("12_your_own", "e1", (plain, other)).message
    assert "generate" in verdict("12_your_own", "e1", (1, 2)).message


def test_acceptance_of_tier_1() -> None:
    def right(tiers: Any) -> float:
        (count,) = [one for one in tiers if one.tier == 1]
        return float(count.accepted / count.proposed)

    assert verdict("12_your_own", "e2", right).passed
    assert not verdict("12_your_own", "e2", lambda tiers: tiers[0].acceptance_rate).passed


def test_a_policy_by_peaks() -> None:
    def peak(queries: torch.Tensor, landmarks: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        shares = (queries @ landmarks.transpose(1, 2) * queries.shape[-1] ** -0.5).softmax(-1)
        scores: torch.Tensor = (shares * weights[:, None]).amax(1)
        return scores

    assert verdict("12_your_own", "e3", peak).passed
    no_weights = verdict("12_your_own", "e3", lambda q, m, w: peak(q, m, torch.ones(len(w))))
    assert "padding" in no_weights.message
    assert not verdict("12_your_own", "e3", retrieval.attention).passed
    assert "one score" in verdict("12_your_own", "e3", lambda q, m, w: m.mean()).message


def test_better_than_the_control(mine: str) -> None:
    control = run(speculation=Speculation(budget=48, chunk=4, recent=8, retrieval="newest"))
    own = run(speculation=Speculation(budget=48, chunk=4, recent=8, retrieval=mine))
    found = verdict("12_your_own", "e4", (control, own))
    rates = [next(c for c in one.tiers if c.tier == 1).acceptance_rate for one in (control, own)]
    assert found.passed == (rates[1] > rates[0])  # type: ignore[operator]
    assert "measured" in found.message
    assert "the engine's" in verdict("12_your_own", "e4", (control, control)).message
    assert "control" in verdict("12_your_own", "e4", (own, control)).message
    other = run(speculation=Speculation(budget=64, chunk=4, recent=8, retrieval=mine))
    assert "more than the policy" in verdict("12_your_own", "e4", (control, other)).message
