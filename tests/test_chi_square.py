"""Samples of the real engine, over real caches, against exact autoregressive probabilities."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy.stats import chisquare

import mspeckv.decoding.sampling
from mspeckv import KVPolicy, RunConfig, Sampling, Speculation
from mspeckv.testing.exactness import chi_square, expect, sample
from tests.random_models import random_pair, random_prompt

VOCAB, LENGTH, SAMPLES = 8, 3, 3_000
PAIR = random_pair("llama", layers=2, vocab=VOCAB, seed=3)
PROMPT = random_prompt(61, vocab=VOCAB, seed=5)
CONFIG = RunConfig(
    "mspeckv",
    new_tokens=8,
    policy=KVPolicy(4, on_chip=0, resident=1, block=16, group=16, tail=8),
    speculation=Speculation(
        gamma=2, draft_gamma=2, budget=24, chunk=4, recent=8, sinks=2, window=16
    ),
    sampling=Sampling(temperature=1.3, top_p=0.9, seed=11),
)


def observed(config: RunConfig, samples: int) -> Counter[tuple[int, ...]]:
    """How often each text came."""
    return sample(PAIR, PROMPT, config, LENGTH, samples)


def p_value(config: RunConfig, seen: Counter[tuple[int, ...]]) -> float:
    """Chance of a fit this bad, were the two distributions the same."""
    return chi_square(seen, expect(PAIR, PROMPT, config, LENGTH))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.slow
def test_samples_follow_the_target() -> None:
    assert p_value(CONFIG, observed(CONFIG, SAMPLES)) > 1e-3


@pytest.mark.usefixtures("one_thread")
@pytest.mark.slow
def test_the_test_sees_a_rejection_that_draws_from_p(monkeypatch: pytest.MonkeyPatch) -> None:
    """The origin's flaw, planted: after a rejection, draw from p instead of what q left of it."""
    monkeypatch.setattr(mspeckv.decoding.sampling, "residual", lambda target, proposal: target)
    assert p_value(CONFIG, observed(CONFIG, SAMPLES // 2)) < 1e-6


def test_the_kit_computes_what_scipy_does() -> None:
    """Few texts are rare here, so that each is a cell of its own in both."""
    shares: dict[tuple[int, ...], float] = {(0,): 0.5, (1,): 0.3, (2,): 0.2}
    seen: Counter[tuple[int, ...]] = Counter({(0,): 40, (1,): 39, (2,): 21})
    wanted = [share * seen.total() for share in shares.values()]
    ours = chi_square(seen, shares)
    assert ours == pytest.approx(float(chisquare(list(seen.values()), wanted).pvalue))


def test_a_text_that_cannot_come_is_seen() -> None:
    assert chi_square(Counter({(0,): 99, (1,): 1}), {(0,): 1.0, (1,): 0.0}) == 0
