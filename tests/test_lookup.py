"""Tier 0 by lookup: what it proposes, and that it forgets what is taken back."""

from __future__ import annotations

from math import exp

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mspeckv.adaptive.lookup import FAR, LONGEST, SHORTEST, SHORTEST_CHOSEN, Lookup

VOCAB = 5
LIKE = torch.empty(0)


def chances(tokens: list[int], limit: int, shortest: int) -> tuple[list[int], list[float]]:
    """The slow way: the most recent place where the longest suffix stood before, and how many
    such places go on alike.
    """
    alike = {
        place: next(
            (n for n in range(min(FAR, place), 0, -1) if tokens[place - n : place] == tokens[-n:]),
            0,
        )
        for place in range(1, len(tokens))
    }
    # places are told apart by up to `LONGEST` tokens, of those so found the last 16 are looked at
    found = min(LONGEST, max(alike.values(), default=0))
    recent = [place for place, n in alike.items() if n >= found][-16:]
    if found < shortest:
        return [], []
    length = max(alike[place] for place in recent)
    places = [place for place in recent if alike[place] == length]
    text, held = list(tokens), []
    start = places[-1]
    for offset in range(limit):
        text.append(text[start + offset])
        went = [place for place in places if text[place + offset] == text[-1]]
        held.append((len(went) - 0.6 * exp(-min(FAR, length + offset) / 8)) / len(places))
        places = went
    return text[len(tokens) :], held


@given(
    st.lists(st.tuples(st.integers(0, 6), st.lists(st.integers(0, VOCAB - 1), max_size=6))),
    st.integers(1, 5),
    st.sampled_from([SHORTEST, SHORTEST_CHOSEN]),
)
def test_proposals_are_those_of_a_search_after_any_edits(
    edits: list[tuple[int, list[int]]], limit: int, shortest: int
) -> None:
    lookup, tokens = Lookup(VOCAB, LIKE, shortest), [0]
    for cut, more in edits:
        tokens = tokens[: max(1, len(tokens) - cut)]
        lookup.settle(len(tokens))
        tokens = tokens + more
        emission = lookup.round(tokens, limit)
        expected, held = chances(tokens, limit, shortest)
        assert emission.tokens == expected
        assert emission.held == pytest.approx(held)
        assert [int(row.argmax()) for row in emission.distributions] == emission.tokens
        assert all(float(row.sum()) == 1.0 for row in emission.distributions)


def test_a_period_goes_on_for_as_long_as_asked() -> None:
    lookup = Lookup(VOCAB, LIKE)
    assert lookup.round([1, 2, 3, 1, 2], 7).tokens == [3, 1, 2, 3, 1, 2, 3]


def test_a_longer_match_goes_before_a_more_recent_one() -> None:
    text = list(range(FAR + 6))
    # the last six tokens stood before twice, first after the ten that precede them now
    tokens = [*text[: FAR + 2], 90, *text[FAR - 4 : FAR + 2], 80, *text[1 : FAR + 2]]
    assert Lookup(100, LIKE).guess(tokens, 1)[0] == [90]


def test_the_longer_the_match_the_surer_the_guess() -> None:
    text = list(range(FAR + 4))
    assert Lookup(FAR + 4, LIKE).guess([*text, 0], 3) == ([], [])
    first = [Lookup(FAR + 4, LIKE).guess([*text, *text[:n]], 1)[1][0] for n in range(2, FAR + 1)]
    assert first == sorted(first)
    assert 0.5 < first[0] < 0.6
    assert 0.9 < first[-1] < 0.95
    # further guesses count as after a longer match
    assert Lookup(FAR + 4, LIKE).guess([*text, *text[:2]], FAR - 1)[1] == first


def test_a_text_that_went_on_in_other_ways_makes_guesses_unsure() -> None:
    alone = Lookup(9, LIKE).guess([1, 2, 3, 4, 1, 2], 2)[1]
    twice = Lookup(9, LIKE).guess([1, 2, 3, 4, 0, 1, 2, 3, 5, 1, 2], 2)
    thrice = Lookup(9, LIKE).guess([1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 1, 2, 3, 4, 6, 1, 2], 2)[1]
    assert twice[0] == [3, 5]
    assert thrice[0] > twice[1][0] > alone[0], "more often seen, surer"
    assert thrice[1] > alone[1] > twice[1][1], "where they part, unsure"


def test_one_token_is_a_match_where_that_is_asked_for() -> None:
    assert Lookup(VOCAB, LIKE).guess([1, 2, 3, 1], 1)[0] == []
    assert Lookup(VOCAB, LIKE, shortest=SHORTEST_CHOSEN).guess([1, 2, 3, 1], 1)[0] == [2]


def test_nothing_to_say_ends_the_chain() -> None:
    emission = Lookup(VOCAB, LIKE).round([1, 2, 3, 4], 5)
    assert not emission.tokens
    assert emission.last
