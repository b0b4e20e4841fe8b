"""Exactness without sampling: every random choice of the algorithm, with its probability."""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import pytest
import torch

import mspeckv.decoding.sampling
from mspeckv import Sampling
from mspeckv.decoding.sampling import Sampler
from tests.tables import PROMPT, VOCAB, TableReader, emit, nest

LENGTH = 3
Distribution = dict[tuple[int, ...], float]


class Enumerator(Sampler):
    """A sampler that follows a given path of choices and adds up its probability.

    `Sampler`'s only two random acts are overridden, so all else that runs is the real thing.
    """

    def __init__(self, sampling: Sampling) -> None:
        super().__init__(sampling)
        self.given: list[int] = []
        self.path: list[int] = []
        self.options: list[list[int]] = []
        self.mass = 1.0

    def start(self, path: list[int]) -> None:
        """Follow ``path``, then the first possible choice each time."""
        self.given, self.path, self.options, self.mass = path, [], [], 1.0

    def pick(self, probs: torch.Tensor) -> int:
        return self._branch((probs / probs.sum()).tolist())

    def accepts(self, p: float, q: float) -> bool:
        yes = min(1.0, p / q)
        return self._branch([1.0 - yes, yes]) == 1

    def _branch(self, weights: list[float]) -> int:
        possible = [index for index, weight in enumerate(weights) if weight > 0]
        step = len(self.path)
        choice = self.given[step] if step < len(self.given) else possible[0]
        self.options.append(possible)
        self.path.append(choice)
        self.mass *= weights[choice]
        return choice


def enumerate_emissions(
    depth: int, gammas: tuple[int, ...], sampling: Sampling, leaf: str
) -> Distribution:
    """The exact distribution of what the levels emit: depth-first over all choices."""
    sampler = Enumerator(sampling)
    level, _ = nest(depth, sampler, gammas, leaf)
    out: Distribution = defaultdict(float)
    path: list[int] | None = []
    while path is not None:
        sampler.start(path)
        out[emit(level, LENGTH)] += sampler.mass
        path = next_path(sampler.path, sampler.options)
    return out


def next_path(path: list[int], options: list[list[int]]) -> list[int] | None:
    """The path after this one: its last choice that has another option moves on."""
    for step in reversed(range(len(path))):
        later = [option for option in options[step] if option > path[step]]
        if later:
            return [*path[:step], later[0]]
    return None


def target_distribution(top: TableReader, sampling: Sampling) -> Distribution:
    """What autoregressive sampling of the top table gives."""
    sampler = Sampler(sampling)
    out: Distribution = {}
    for sequence in product(range(VOCAB), repeat=LENGTH):
        mass, tokens = 1.0, list(PROMPT)
        for token in sequence:
            mass *= float(sampler.distribution(top.read(tokens, 1), tokens)[0, token])
            tokens.append(token)
        out[sequence] = mass
    return out


def worst_error(
    depth: int, gammas: tuple[int, ...], sampling: Sampling, leaf: str = "table"
) -> float:
    """Largest difference between a sequence's two probabilities."""
    emitted = enumerate_emissions(depth, gammas, sampling, leaf)
    assert sum(emitted.values()) == pytest.approx(1.0, abs=1e-9)
    _, top = nest(depth, Sampler(sampling), gammas)
    expected = target_distribution(top, sampling)
    assert emitted.keys() <= expected.keys()
    return max(abs(emitted.get(key, 0.0) - mass) for key, mass in expected.items())


CASES = [(1, ()), (2, (1,)), (2, (2,)), (2, (3,)), (3, (1, 1)), (3, (1, 2)), (3, (2, 2))]


@pytest.mark.parametrize(("depth", "gammas"), CASES)
@pytest.mark.parametrize(
    "sampling", [Sampling(1.0, 1.0), Sampling(0.7, 0.8)], ids=["plain", "warped"]
)
def test_emitted_distribution_is_the_targets(
    depth: int, gammas: tuple[int, ...], sampling: Sampling
) -> None:
    assert worst_error(depth, gammas, sampling) < 1e-9


@pytest.mark.parametrize("leaf", ["lookup", "unsure", "chain"])
@pytest.mark.parametrize(("depth", "gammas"), [(2, (3,)), (3, (2, 2))])
@pytest.mark.parametrize(
    "sampling",
    [Sampling(1.0, 1.0), Sampling(0.8, 0.9, top_k=3, min_p=0.05, repetition_penalty=1.3)],
    ids=["plain", "warped"],
)
def test_other_guessers_and_processors_keep_the_distribution(
    depth: int, gammas: tuple[int, ...], sampling: Sampling, leaf: str
) -> None:
    assert worst_error(depth, gammas, sampling, leaf) < 1e-9


@pytest.mark.parametrize(("depth", "gammas"), [(2, (2,)), (3, (1, 2))])
def test_the_test_sees_a_rejection_that_draws_from_p(
    depth: int, gammas: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The origin's flaw, planted: after a rejection, draw from p instead of what q left of it."""
    monkeypatch.setattr(mspeckv.decoding.sampling, "residual", lambda target, proposal: target)
    assert worst_error(depth, gammas, Sampling(1.0, 1.0)) > 1e-3
