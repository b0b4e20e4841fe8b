"""Tier 0 by lookup: what it proposes, and that it forgets what is taken back."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mspeckv.decoding.lookup import FAR, LONGEST, SHORTEST, SHORTEST_CHOSEN, Lookup

VOCAB = 5
LIKE = torch.empty(0)


def proposal(tokens: list[int], limit: int) -> list[int]:
    """The slow way: the most recent place where the longest suffix stood before."""
    for length in range(min(LONGEST, len(tokens)), SHORTEST - 1, -1):
        for place in range(len(tokens) - 1, length - 1, -1):
            if tokens[place - length : place] == tokens[-length:]:
                text = list(tokens)
                for offset in range(limit):
                    text.append(text[place + offset])
                return text[len(tokens) :]
    return []


@given(
    st.lists(st.tuples(st.integers(0, 6), st.lists(st.integers(0, VOCAB - 1), max_size=6))),
    st.integers(1, 5),
)
def test_proposals_are_those_of_a_search_after_any_edits(
    edits: list[tuple[int, list[int]]], limit: int
) -> None:
    lookup, tokens = Lookup(VOCAB, LIKE), [0]
    for cut, more in edits:
        tokens = tokens[: max(1, len(tokens) - cut)]
        lookup.settle(len(tokens))
        tokens = tokens + more
        emission = lookup.round(tokens, limit)
        assert emission.tokens == proposal(tokens, limit)
        assert [int(row.argmax()) for row in emission.distributions] == emission.tokens
        assert all(float(row.sum()) == 1.0 for row in emission.distributions)


def test_a_period_goes_on_for_as_long_as_asked() -> None:
    lookup = Lookup(VOCAB, LIKE)
    assert lookup.round([1, 2, 3, 1, 2], 7).tokens == [3, 1, 2, 3, 1, 2, 3]
    assert lookup.match([1, 2, 3, 1, 2])[0] == 2


def test_a_match_is_counted_beyond_what_is_searched_for() -> None:
    text = list(range(FAR + 4))
    assert Lookup(FAR + 4, LIKE).match([*text, 0]) == (0, 0)
    for length in (LONGEST, LONGEST + 3, FAR):
        assert Lookup(FAR + 4, LIKE).match([*text, *text[:length]]) == (length, length)
    assert Lookup(FAR + 4, LIKE).match([*text, *text[: FAR + 2]]) == (FAR, FAR + 2)


def test_one_token_is_a_match_where_that_is_asked_for() -> None:
    assert Lookup(VOCAB, LIKE).match([1, 2, 3, 1]) == (0, 0)
    assert Lookup(VOCAB, LIKE, shortest=SHORTEST_CHOSEN).match([1, 2, 3, 1]) == (1, 1)


def test_nothing_to_say_ends_the_chain() -> None:
    emission = Lookup(VOCAB, LIKE).round([1, 2, 3, 4], 5)
    assert not emission.tokens
    assert emission.last
