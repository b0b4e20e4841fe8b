"""The accept/reject test, alone and nested, against the distribution it must reproduce."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch
from scipy.stats import chisquare

from mspeckv import Sampling
from mspeckv.decoding.levels import Autoregress, Level, Speculate
from mspeckv.decoding.recorder import Recorder
from mspeckv.decoding.sampling import Sampler, keep_nucleus, residual
from mspeckv.kv.ledger import Ledger

VOCAB = 4


class TableReader:
    """A 'model' whose next-token logits are a random table over the last token."""

    def __init__(self, tier: int, seed: int) -> None:
        self.tier = tier
        generator = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(VOCAB, VOCAB, generator=generator, dtype=torch.float64) * 1.5

    def read(self, tokens: list[int], rows: int) -> torch.Tensor:
        return self.logits[tokens[-rows:]]

    def room(self, length: int) -> int:
        return 1000

    def settle(self, length: int) -> None:
        """A table remembers nothing."""


def nest(depth: int, sampler: Sampler) -> tuple[Level, TableReader]:
    readers = [TableReader(tier, seed=tier) for tier in range(depth)]
    recorder = Recorder(Ledger())
    level: Level = Autoregress(readers[0], sampler)
    for reader, gamma in zip(readers[1:], (2, 3), strict=False):
        level = Speculate(level, reader, gamma, sampler, recorder)
    return level, readers[-1]


def emit(level: Level, count: int) -> tuple[int, ...]:
    tokens = [0]
    while len(tokens) <= count:
        tokens += level.round(tokens, 1 + count - len(tokens) + 1).tokens
    return tuple(tokens[1 : count + 1])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_nested_levels_emit_the_top_models_distribution(depth: int) -> None:
    sampler = Sampler(Sampling(temperature=1.0, top_p=1.0, seed=depth))
    level, top = nest(depth, sampler)
    probs = top.logits.softmax(-1)
    draws, length = 8_000, 3
    seen = Counter(emit(level, length) for _ in range(draws))
    sequences = list(product(range(VOCAB), repeat=length))
    expected = []
    for sequence in sequences:
        mass = 1.0
        for before, token in zip((0, *sequence), sequence, strict=False):
            mass *= float(probs[before, token])
        expected.append(mass * draws)
    # The chi-square law needs a few counts in every cell: rare sequences share one.
    common = [(seen[s], e) for s, e in zip(sequences, expected, strict=True) if e >= 8]
    counts, means = [c for c, _ in common], [e for _, e in common]
    result = chisquare([*counts, draws - sum(counts)], [*means, draws - sum(means)])
    assert result.pvalue > 1e-4


def test_the_residual_is_what_is_left_of_p_after_q() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.7, 0.1, 0.2])
    assert torch.allclose(residual(p, q), torch.tensor([0.0, 0.2, 0.0]))
    assert torch.equal(residual(p, p), p)


@pytest.mark.parametrize("vocab", [7, 900])
def test_the_nucleus_is_the_smallest_set_with_the_mass(vocab: int) -> None:
    generator = torch.Generator().manual_seed(1)
    probs = (torch.randn(5, vocab, generator=generator) * 0.5).softmax(-1)
    for top_p in (0.05, 0.5, 0.95, 0.9999):
        kept = keep_nucleus(probs, top_p)
        assert torch.allclose(kept.sum(-1), torch.ones(5))
        for row, out in zip(probs, kept, strict=True):
            inside = row[out > 0]
            assert float(inside.sum()) >= top_p - 1e-5
            assert float(inside.sum() - inside.min()) < top_p
            if bool((out == 0).any()):
                assert float(inside.min()) > float(row[out == 0].max())


def test_greedy_is_one_hot_at_the_largest_logit() -> None:
    sampler = Sampler(Sampling(temperature=0))
    logits = torch.tensor([[0.0, 3.0, -1.0]])
    probs = sampler.distribution(logits)
    assert probs.tolist() == [[0.0, 1.0, 0.0]]
    assert sampler.draw(probs[0]) == 1


def test_tokens_of_no_mass_are_never_drawn() -> None:
    sampler = Sampler(Sampling(temperature=1.0, top_p=1.0))
    probs = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    assert {sampler.draw(probs) for _ in range(300)} == {1, 3}
