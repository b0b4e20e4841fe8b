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
from mspeckv_widgets.course.exercises import lab12
from mspeckv_widgets.replay import Replay, Step
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


def by_keys(
    keys: torch.Tensor, queries: torch.Tensor, chunk: int, count: int, scale: float = 1.0
) -> torch.Tensor:
    """Chunks by the attention that these queries pay to their tokens; worst first for -1."""
    shares = (queries @ keys.transpose(1, 2) * keys.shape[-1] ** -0.5).softmax(-1).sum(1)
    scores = scale * shares.unflatten(1, (-1, chunk)).sum(2)
    scores[:, 0] = float("inf")
    best: torch.Tensor = scores.topk(count).indices
    return best


def test_a_choice_of_chunks_is_scored_by_what_it_captures(probe: AttentionProbe) -> None:
    right = verdict("04_tiers", "e2", (probe, GUESS, by_keys))
    assert right.passed
    report = probe.report(GUESS)
    assert right.score is not None
    assert 100 * report.captured.mean() - 0.5 <= right.score.value <= 100 * report.best.mean() + 0.1
    assert (right.score.kind, right.score.less_is_better) == ("measured", False)
    worst = verdict("04_tiers", "e2", (probe, GUESS, lambda k, q, c, n: by_keys(k, q, c, n, -1.0)))
    assert not worst.passed
    assert "the engine's landmarks capture" in worst.message


def test_what_is_no_choice_is_told(probe: AttentionProbe) -> None:
    def message(choose: Any) -> str:
        return verdict("04_tiers", "e2", (probe, GUESS, choose)).message

    assert "leaves out chunk 0" in message(lambda k, q, c, n: by_keys(k, q, c, n + 1)[:, 1:])
    assert "chunk twice" in message(lambda k, q, c, n: torch.zeros(len(k), n, dtype=torch.long))
    assert "return [2, " in message(lambda k, q, c, n: torch.arange(n))
    assert "numbered from 0" in message(lambda *a: by_keys(*a) + 1000)
    assert "whole numbers" in message(lambda *a: "all")
    assert "no answer yet" in message(lambda *a: ...)
    assert "give" in verdict("04_tiers", "e2", by_keys).message


def test_a_token_that_tier_1_put_right(events: list[Event]) -> None:
    def right(step: Step) -> bool:
        wrong = any(word.fate == "rejected" and word.tier == 0 for word in step.words)
        return wrong and step.settled_by == 1

    found = verdict("04_tiers", "e3", (events, right))
    count = sum(right(step) for step in Replay.of(events).steps)
    assert found.passed
    assert 0 < count < 30
    assert found.message.startswith(f"{count} of 30 tokens")
    half = verdict("04_tiers", "e3", (events, lambda step: step.settled_by == 1))
    assert "settled by tier 1" in half.message
    assert "is not one of these" in half.message
    none = verdict("04_tiers", "e3", (events, lambda step: False))
    assert "is one of these" in none.message
    assert "give" in verdict("04_tiers", "e3", 4).message


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


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents of a pair without a tokenizer, and a budget that leaves something out of them."""
    monkeypatch.setattr(lab12, "_hidden_prompts", lambda pair: [random_prompt(260), PROMPT])


def test_better_than_the_control_on_hidden_documents(hidden: None, mine: str) -> None:
    found = verdict("12_your_own", "e4", (PAIR, mine))
    kept = {name: lab12._kept(PAIR, name) for name in ("newest", mine)}
    shares = {name: 100 * a / b for name, (a, b) in kept.items()}
    assert found.passed == (shares[mine] > shares["newest"])
    assert f"kept {shares[mine]:.0f}% of tier 1's guesses" in found.message
    assert f"with the control {shares['newest']:.0f}%" in found.message
    if found.passed:
        assert found.score is not None
        assert found.score.value == pytest.approx(shares[mine], abs=0.05)


def test_the_controls_own_choice_is_no_better(hidden: None) -> None:
    @retrieval.register("same")
    def _same(queries: Any, landmarks: Any, weights: Any) -> torch.Tensor:
        return retrieval.newest(queries, landmarks, weights)

    try:
        found = verdict("12_your_own", "e4", (PAIR, "same"))
    finally:
        retrieval.unregister("same")
    assert not found.passed
    assert "must choose better" in found.message


def test_a_policy_that_is_not_ones_own(hidden: None) -> None:
    assert "the engine's" in verdict("12_your_own", "e4", (PAIR, "attention")).message
    assert (
        "no policy 'yours' is registered" in verdict("12_your_own", "e4", (PAIR, "yours")).message
    )
    assert "give (pair" in verdict("12_your_own", "e4", "attention").message
