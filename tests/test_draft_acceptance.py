"""`benchmarks.draft_acceptance`: what is kept and what is lost are one whole, however it is cut."""

from __future__ import annotations

import torch

from benchmarks.draft_acceptance import BITS, RANKS, by_position, by_rank, judge, repeated
from mspeckv import Pair
from mspeckv.testing import tiny_pair, tiny_prompt


def test_kept_and_lost_are_one() -> None:
    pair = tiny_pair(vocab=128)
    windows = torch.tensor([tiny_prompt(40, 128, seed) for seed in range(3)])
    found = judge(pair, windows)
    assert torch.allclose(found.kept + found.lost.sum(1), torch.ones(120), atol=1e-5)
    assert (found.lost >= 0).all()
    rows = by_position(found)
    assert len(rows) == 3 + len(BITS) + 1
    assert rows[0][2] == float(found.kept.mean())
    assert [name for name, _ in by_rank(found)] == ["1 to 1", "2 to 10", "11 to 100", "further"]
    assert len(by_rank(found)) == len(RANKS) + 1


def test_a_draft_that_is_the_target_loses_nothing() -> None:
    target = tiny_pair(vocab=128).target
    found = judge(Pair.of(target, target), torch.tensor([tiny_prompt(40, 128)]))
    assert float(found.kept.min()) > 1 - 1e-5


def test_what_repeats() -> None:
    window = torch.tensor([1, 2, 3, 1, 2, 1])
    likeliest = torch.tensor([2, 3, 1, 2, 9, 2])
    # (1, 2) is known from place 1 on; (2, 3) only after it was read
    assert repeated(window, likeliest).tolist() == [False, False, False, True, False, True]
