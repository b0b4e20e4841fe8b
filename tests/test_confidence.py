"""Chains of guesses end where one more of them stops paying."""

from __future__ import annotations

from functools import partial
from itertools import pairwise, product
from math import prod

import pytest

from mspeckv import KVPolicy, Pair, Round, RunConfig, Sampling, Speculation, documents, stream
from mspeckv.adaptive.estimates import Confidence
from mspeckv.adaptive.lengths import Planner
from mspeckv.decoding.speculate import Chain
from mspeckv.events import Guess, Pass, Plan

LONGEST = 8
GREEDY = Sampling(temperature=0, stop_at_eos=False)


def test_the_drafts_word_is_taken_until_it_is_tested() -> None:
    confidence = Confidence()
    assert confidence.kept(2, 0.8) == 0.8
    for _ in range(300):
        confidence.fade()
        # of tokens held at 0.8, half are kept by tier 2
        confidence.see(2, (0.8, 0.8), 1)
        confidence.see(2, (0.99,), 1)
    assert confidence.kept(2, 0.8) == pytest.approx(0.5, abs=0.05)
    assert confidence.kept(2, 0.99) > 0.95
    assert confidence.kept(1, 0.8) == 0.8, "another tier, another judgement"


def test_what_follows_a_break_was_not_tested() -> None:
    confidence = Confidence()
    confidence.see(2, (0.9, 0.2, 0.5), 0)
    assert confidence.kept(2, 0.2) == 0.2
    assert confidence.kept(2, 0.9) < 0.9


def test_a_chain_ends_where_it_is_hardly_kept_whole() -> None:
    chain = Chain(partial(Confidence().kept, 2), stop=0.5)
    assert [chain.ends_with(0.8) for _ in range(4)] == [False, False, False, True]
    chain.whole = 1.0
    assert [chain.ends_with(0.8) for _ in range(4)] == [False, False, False, True]
    chain.whole = 1.0
    assert chain.ends_with(0.4)
    assert not any(Chain(partial(Confidence().kept, 2), stop=0.0).ends_with(0.1) for _ in range(9))


@pytest.mark.parametrize("guess_ms", [1.0, 4.0, 12.0])
def test_no_fixed_length_beats_the_rule_where_the_draft_is_honest(guess_ms: float) -> None:
    """Every token is held at 0.3 or 0.95, as likely as it is kept; enumerated, not sampled."""
    look_ms, levels = 60.0, (0.3, 0.95)
    cases = list(product(levels, repeat=LONGEST))

    def rate(length: dict[tuple[float, ...], int]) -> float:
        """Milliseconds per token of rounds whose chains have these lengths."""
        ms = sum(look_ms + guess_ms * length[case] for case in cases)
        tokens = sum(
            1 + sum(prod(case[: k + 1]) for k in range(length[case])) for case in cases
        )  # fmt: skip
        return ms / tokens

    def chosen(token_ms: float) -> dict[tuple[float, ...], int]:
        lengths = {}
        for case in cases:
            chain = Chain(partial(Confidence().kept, 2), guess_ms / token_ms)
            ends = (k for k, held in enumerate(case, start=1) if chain.ends_with(held))
            lengths[case] = next(ends, LONGEST)
        return lengths

    token_ms = look_ms
    for _ in range(50):
        token_ms = rate(chosen(token_ms))
    fixed = min(rate(dict.fromkeys(cases, k)) for k in range(LONGEST + 1))
    assert token_ms <= fixed + 1e-9


def seen(planner: Planner, path: tuple[int, ...], ms: dict[int, float]) -> None:
    """Many rounds in which guesses were mostly kept."""
    for _ in range(60):
        passes = [
            Pass(tier, "verify", n, 0, 0.0, ms[tier] + 0.05 * n) for tier in path for n in (1, 5, 9)
        ]
        guesses = [
            Guess(low, high, (0,) * 8, 7, 0, (0.9,) * 8 if low == 0 else ())
            for low, high in pairwise(path)
        ]
        if len(path) == 3:
            # what tier 0 alone puts to tier 2 is worth nothing
            guesses.append(Guess(0, 2, (0,) * 8, 0, 0))
        planner.learn(passes, guesses)


def test_free_lengths_are_opened_and_fixed_ones_are_not() -> None:
    ms = {0: 4.0, 2: 100.0}
    planner = Planner(Speculation(gamma="auto"), True, False, False)
    seen(planner, (0, 2), ms)
    plan = planner.choose(room=64)
    assert plan.path == (0, 2)
    assert plan.gamma > 16
    assert 4 / 100 < plan.stop < 1
    assert planner.choose(room=5).gamma == 5

    fixed = Planner(Speculation(gamma=4, draft_gamma="auto"), True, False, False)
    seen(fixed, (0, 2), ms)
    assert fixed.choose(room=64) == Plan((0, 2), 4, 0)

    middle = Planner(Speculation(gamma="auto", draft_gamma="auto"), True, True, False)
    seen(middle, (0, 1, 2), {0: 4.0, 1: 40.0, 2: 900.0})
    plan = middle.choose(room=64)
    assert plan.path == (0, 1, 2)
    assert plan.draft_gamma == 6
    assert plan.stop > 4 / 40

    copies = Planner(Speculation(gamma="auto", tier0="lookup"), True, False, True)
    seen(copies, (0, 2), ms)
    assert copies.choose(room=64, held=(0.9,) * 31).stop == 0


def test_a_real_draft_guesses_far_only_where_it_is_sure(pair: Pair) -> None:
    prompt = documents.load_document("python-reference", pair.tokenizer, 300)
    tokens = {}
    for method in ("autoregressive", "vanilla"):
        rounds = [
            event
            for event in stream(
                pair,
                prompt,
                RunConfig.build(
                    method=method,
                    new_tokens=48,
                    policy=KVPolicy(8),
                    link=0.02,
                    speculation=Speculation(gamma="auto"),
                    sampling=GREEDY,
                ),
            )
            if isinstance(event, Round)
        ]
        tokens[method] = [token for one in rounds for token in one.tokens]
    assert tokens["vanilla"] == tokens["autoregressive"]
    made = [(one.plan, one.guesses[0]) for one in rounds if one.guesses and one.plan.stop]
    assert len({len(guess.tokens) for _, guess in made}) > 2
    for plan, guess in made:
        assert len(guess.held) == len(guess.tokens) <= plan.gamma
        assert all(0 <= held <= 1 for held in guess.held)
