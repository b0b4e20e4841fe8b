"""Samples of the real engine, over real caches, against exact autoregressive probabilities."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product

import pytest
import torch
from scipy.stats import chisquare

import mspeckv.decoding.sampling
from mspeckv import KVPolicy, RunConfig, Sampling, Speculation
from mspeckv.api import engine_of
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.tiers import Tiers, build_tiers
from mspeckv.kv.link import CopyEngine
from mspeckv.record import Ledger, Recorder
from tests.random_models import random_pair, random_prompt

VOCAB, LENGTH, SAMPLES = 8, 3, 20_000
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


@contextmanager
def prefilled(config: RunConfig) -> Iterator[Tiers]:
    """The tiers of a method, as they stand when the first round begins."""
    recorder = Recorder(Ledger())
    with CopyEngine(recorder.ledger, None) as link, torch.inference_mode():
        tiers = build_tiers(engine_of(PAIR), config, PAIR, PROMPT, link, recorder, lent=ExitStack())
        for reader in tiers.prefilled:
            reader.prefill(PROMPT[:-1])
        yield tiers


def expected_counts(config: RunConfig, samples: int) -> dict[tuple[int, ...], float]:
    """Exact expectation of every sequence under autoregressive decoding, same policy."""
    sampler = Sampler(config.sampling)
    with prefilled(replace(config, method="autoregressive")) as tiers:
        reader = tiers.prefilled[-1]
        mass: dict[tuple[int, ...], float] = {(): 1.0}
        for length in range(LENGTH):
            for sequence in product(range(VOCAB), repeat=length):
                prefix = PROMPT + list(sequence)
                tiers.full.settle(len(PROMPT) - 1)
                tiers.full.begin_pass()
                row = sampler.distribution(reader.read(prefix, rows=1), prefix)[0].tolist()
                before = mass.pop(sequence)
                mass.update({(*sequence, token): before * p for token, p in enumerate(row)})
    return {sequence: p * samples for sequence, p in mass.items()}


def observed_counts(config: RunConfig, samples: int) -> Counter[tuple[int, ...]]:
    """The same prompt continued ``samples`` times by the method's own rounds."""
    # passes this small only wait for a second thread
    torch.set_num_threads(1)
    seen: Counter[tuple[int, ...]] = Counter()
    with prefilled(config) as tiers:
        for _ in range(samples):
            tokens = list(PROMPT)
            while len(tokens) < len(PROMPT) + LENGTH:
                tiers.full.begin_pass()
                tokens += tiers.root.round(tokens, len(PROMPT) + LENGTH - len(tokens)).tokens
            seen[tuple(tokens[len(PROMPT) :])] += 1
            tiers.root.settle(len(PROMPT) - 1)
    return seen


def p_value(config: RunConfig, seen: Counter[tuple[int, ...]]) -> float:
    """Chance of a fit this bad, were the two distributions the same."""
    samples = seen.total()
    expected = expected_counts(config, samples)
    assert all(expected[sequence] > 0 for sequence in seen)
    cells = [sequence for sequence, count in expected.items() if count >= 5]
    rare = sum(count for count in expected.values() if count < 5)
    counts = [seen[sequence] for sequence in cells] + [samples]
    counts[-1] -= sum(counts[:-1])
    wanted = [expected[sequence] for sequence in cells] + [rare]
    if rare < 5:
        counts[-2:], wanted[-2:] = [sum(counts[-2:])], [sum(wanted[-2:])]
    assert len(cells) > 30
    scale = sum(counts) / sum(wanted)
    return float(chisquare(counts, [count * scale for count in wanted]).pvalue)


@pytest.mark.slow
def test_samples_follow_the_target() -> None:
    halves = [replace(CONFIG, sampling=replace(CONFIG.sampling, seed=seed)) for seed in (11, 12)]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        seen = list(pool.map(observed_counts, halves, [SAMPLES // 2] * 2))
    assert p_value(CONFIG, seen[0] + seen[1]) > 1e-3


@pytest.mark.slow
def test_the_test_sees_a_rejection_that_draws_from_p(monkeypatch: pytest.MonkeyPatch) -> None:
    """The origin's flaw, planted: after a rejection, draw from p instead of what q left of it."""
    monkeypatch.setattr(mspeckv.decoding.sampling, "residual", lambda target, proposal: target)
    assert p_value(CONFIG, observed_counts(CONFIG, SAMPLES // 8)) < 1e-9
