"""Every guess of a round, kept or not, is in its event."""

from __future__ import annotations

from typing import Any

import pytest

from mspeckv import KVPolicy, Round, RunConfig, Sampling, Speculation, stream
from tests.random_models import random_pair, random_prompt

SPECULATION = Speculation(gamma=5, draft_gamma=2, budget=48, chunk=4, recent=8, window=16)
LONG = Speculation(gamma=6, draft_gamma=2, budget=116, chunk=4, recent=8, window=16)


def rounds_of(**options: Any) -> list[Round]:
    wanted: dict[str, Any] = {
        "new_tokens": 40,
        "speculation": SPECULATION,
        "sampling": Sampling(0, stop_at_eos=False),
        **options,
    }
    events = stream(random_pair(), random_prompt(120), RunConfig.build(**wanted))
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


def test_what_is_accepted_after_the_end_of_the_run_does_not_count() -> None:
    """The last round's guesses went on; of them only what is part of the text was of use."""
    whole = [token for one in rounds_of(speculation=LONG) for token in one.tokens]
    cut = 0
    for end in whole[:12:3]:
        sampling = Sampling(0, stop_at_eos=False, stop_tokens=(end,))
        last = rounds_of(sampling=sampling, speculation=LONG)[-1]
        assert last.tokens[-1] == end
        assert last.accepted == sum(tier < 2 for tier in last.settled_by)
        *inner, top = last.guesses
        if top.accepted >= len(last.tokens):
            cut += 1
            settlers = [tier for guess in inner for tier in (*[0] * guess.accepted, 1)]
            counts = [settlers[: len(last.tokens)].count(0), len(last.tokens), 0]
            assert [count.accepted for count in last.tiers] == counts
    assert cut > 1


def test_who_decodes_alone_guesses_nothing() -> None:
    assert all(one.guesses == () for one in rounds_of(method="autoregressive"))


def test_a_lookup_without_a_match_is_an_empty_guess() -> None:
    speculation = Speculation(tier0="lookup", gamma=4)
    guesses = [
        g for one in rounds_of(method="vanilla", speculation=speculation) for g in one.guesses
    ]
    assert any(guess.tokens == () for guess in guesses)
