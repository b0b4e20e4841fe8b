"""Every guess of a round, kept or not, is in its event."""

from __future__ import annotations

from typing import Any

import pytest

from mspeckv import KVPolicy, Round, Sampling, Speculation, stream
from tests.random_models import random_pair, random_prompt

SPECULATION = Speculation(gamma=5, draft_gamma=2, budget=48, chunk=4, recent=8, window=16)


def rounds_of(**options: Any) -> list[Round]:
    wanted: dict[str, Any] = {
        "new_tokens": 40,
        "speculation": SPECULATION,
        "sampling": Sampling(0, stop_at_eos=False),
        **options,
    }
    events = stream(random_pair(), random_prompt(120), **wanted)
    return [event for event in events if isinstance(event, Round)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_kept_guesses_and_replies_are_the_rounds_tokens(temperature: float) -> None:
    sampling = Sampling(temperature, stop_at_eos=False)
    rounds = rounds_of(policy=KVPolicy(8, block=16), sampling=sampling)
    rejected = 0
    for one in rounds:
        *inner, top = one.guesses
        assert (top.tier, top.verifier) == (1, 2)
        assert len(top.tokens) == one.proposed
        assert (*top.tokens[: top.accepted], top.reply) == one.tokens
        assert {(guess.tier, guess.verifier) for guess in inner} <= {(0, 1)}
        handed_up = [t for g in inner for t in (*g.tokens[: g.accepted], g.reply)]
        assert tuple(handed_up) == top.tokens
        settlers = [tier for g in inner for tier in (*[0] * g.accepted, 1)]
        assert (*settlers[: top.accepted], 2) == one.settled_by
        rejected += sum(len(guess.rejected) for guess in one.guesses)
    assert rejected > 0


def test_a_greedy_rejection_is_another_token() -> None:
    guesses = [guess for one in rounds_of(method="vanilla") for guess in one.guesses]
    wrong = [guess for guess in guesses if guess.rejected]
    assert wrong
    assert all(guess.rejected[0] != guess.reply for guess in wrong)
    assert all(len(guess.tokens) == guess.accepted + len(guess.rejected) for guess in guesses)


def test_counts_are_those_of_the_guesses() -> None:
    for one in rounds_of():
        for count in one.tiers:
            own = [guess for guess in one.guesses if guess.tier == count.tier]
            assert count.proposed == sum(len(guess.tokens) for guess in own)
            assert count.accepted == sum(guess.accepted for guess in own)


def test_who_decodes_alone_guesses_nothing() -> None:
    assert all(one.guesses == () for one in rounds_of(method="autoregressive"))


def test_a_lookup_without_a_match_is_an_empty_guess() -> None:
    speculation = Speculation(tier0="lookup", gamma=4)
    guesses = [
        g for one in rounds_of(method="vanilla", speculation=speculation) for g in one.guesses
    ]
    assert any(guess.tokens == () for guess in guesses)
