"""Distributions, draws and residuals; see test_enumeration.py for the algorithm as a whole."""

from __future__ import annotations

import pytest
import torch

from mspeckv import Sampling
from mspeckv.decoding.sampling import Sampler, keep_nucleus, residual


def test_the_residual_is_what_is_left_of_p_after_q() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.7, 0.1, 0.2])
    assert torch.allclose(residual(p, q), torch.tensor([0.0, 0.2, 0.0]))
    assert torch.equal(residual(p, p), p)


@pytest.mark.parametrize("vocab", [7, 900, 5000])
@pytest.mark.parametrize("spread", [0.5, 5.0])
def test_the_nucleus_is_the_smallest_set_with_the_mass(vocab: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    probs = (torch.randn(5, vocab, generator=generator) * spread).softmax(-1)
    for top_p in (0.05, 0.5, 0.95, 0.9999):
        kept = keep_nucleus(probs, top_p)
        assert torch.allclose(kept.sum(-1), torch.ones(5))
        for row, out in zip(probs, kept, strict=True):
            inside = row[out > 0]
            assert float(inside.sum()) >= top_p - 1e-5
            assert float(inside.sum() - inside.min()) < top_p
            if bool((out == 0).any()):
                assert float(inside.min()) > float(row[out == 0].max())


@pytest.mark.parametrize("alike", [3, 64, 100, 1024, 1500])
def test_tokens_as_likely_as_the_last_one_kept_are_kept_too(alike: int) -> None:
    logits = torch.full((1, 3000), -50.0)
    logits[0, torch.randperm(3000, generator=torch.Generator().manual_seed(2))[:alike]] = 0.0
    kept = keep_nucleus(logits.softmax(-1), 0.5)
    assert torch.equal(kept > 0, logits == 0)
    assert torch.allclose(kept[logits == 0], torch.tensor(1 / alike))


def test_greedy_is_one_hot_at_the_largest_logit() -> None:
    sampler = Sampler(Sampling(temperature=0))
    logits = torch.tensor([[0.0, 3.0, -1.0]])
    probs = sampler.distribution(logits, [0])
    assert probs.tolist() == [[0.0, 1.0, 0.0]]
    assert sampler.draw(probs[0]) == 1


def test_tokens_of_no_mass_are_never_drawn() -> None:
    sampler = Sampler(Sampling(temperature=1.0, top_p=1.0))
    probs = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    assert {sampler.draw(probs) for _ in range(300)} == {1, 3}
