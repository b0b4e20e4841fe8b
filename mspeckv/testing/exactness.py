"""Does guessing change what tier 2 says: token by token where greedy, in distribution otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product

import torch

from mspeckv.api import engine_of, generate
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.tiers import Tiers, build_tiers
from mspeckv.kv.link import open_link
from mspeckv.models.pair import Pair
from mspeckv.record import Ledger, Recorder, clock_of
from mspeckv.settings import KVPolicy, RunConfig, Sampling, Speculation
from mspeckv.testing.tiny import SMALL, tiny_pair, tiny_prompt

_VOCAB, _LENGTH = 8, 2
_LEAST_EXPECTED = 5
"""Below this many expected draws of a sequence, the chi-square test does not hold."""


def check_exactness(
    policy: KVPolicy | None = None, speculation: Speculation | None = None, samples: int = 3000
) -> None:
    """Guesses change neither greedy tokens nor the distribution of sampled ones.

    Args:
        policy: tier 2's KV; what it says by itself, over the same KV, is the reference.
        speculation: the tiers below; default: `SMALL`.
        samples: texts that are sampled, of two tokens each.

    Raises:
        AssertionError: a greedy token differs, or sampled texts are distributed otherwise.
    """
    policy, speculation = policy or KVPolicy(block=16, tail=8), speculation or SMALL
    for seed in range(3):
        texts = {
            method: generate(
                tiny_pair(), tiny_prompt(seed=seed), method=method, new_tokens=40, policy=policy,
                speculation=speculation, sampling=Sampling(0, stop_at_eos=False),
            ).tokens
            for method in ("autoregressive", "mspeckv")
        }  # fmt: skip
        alone, guessed = texts.values()
        assert alone == guessed, f"greedy tokens differ: {alone} by tier 2 alone, {guessed}"
    pair, prompt = tiny_pair(2, _VOCAB, 3), tiny_prompt(vocab=_VOCAB)
    config = RunConfig(
        new_tokens=8, policy=policy, speculation=speculation,
        sampling=Sampling(temperature=1.3, top_p=0.9),
    )  # fmt: skip
    seen = sample(pair, prompt, config, _LENGTH, samples)
    p = chi_square(seen, expect(pair, prompt, config, _LENGTH))
    assert p > 1e-4, f"sampled texts are not distributed as tier 2's own: p = {p:.2g}"


def chi_square(seen: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> float:
    """Chance of counts as far from the expected shares as these, or further.

    Rare texts are counted together; one that cannot come makes it 0. Where all are, it is 1.
    """
    total = sum(seen.values())
    if any(not expected.get(text) for text in seen):
        return 0.0
    often = [text for text, share in expected.items() if share * total >= _LEAST_EXPECTED]
    pairs = [(seen[text], expected[text] * total) for text in often]
    rest = total - sum(count for count, _ in pairs), total - sum(share for _, share in pairs)
    if pairs and rest[1] < _LEAST_EXPECTED:
        last = pairs.pop()
        rest = rest[0] + last[0], rest[1] + last[1]
    pairs.append(rest)
    if len(pairs) == 1:
        return 1.0
    distance = sum((count - share) ** 2 / share for count, share in pairs)
    halves = torch.tensor([(len(pairs) - 1) / 2, distance / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(*halves))


@contextmanager
def prefilled(pair: Pair, prompt: list[int], config: RunConfig) -> Iterator[Tiers]:
    """The tiers of a method, as they stand when the first round begins."""
    ledger = Ledger(clock_of(pair.device))
    with open_link(ledger, None, pair.device) as link, ExitStack() as lent, torch.inference_mode():
        given = engine_of(pair), config, pair, prompt, link, Recorder(ledger)
        tiers = build_tiers(*given, lent=lent)
        for reader in tiers.prefilled:
            reader.prefill(prompt[:-1])
        link.drain()
        yield tiers


def expect(
    pair: Pair, prompt: list[int], config: RunConfig, length: int
) -> dict[tuple[int, ...], float]:
    """The exact probability of every text of ``length`` tokens, tier 2 decoding alone."""
    sampler = Sampler(config.sampling)
    with prefilled(pair, prompt, replace(config, method="autoregressive")) as tiers:
        reader = tiers.prefilled[-1]
        mass: dict[tuple[int, ...], float] = {(): 1.0}
        for grown in range(length):
            for text in product(range(pair.vocab_size), repeat=grown):
                prefix = prompt + list(text)
                tiers.full.settle(len(prompt) - 1)
                tiers.full.begin_pass()
                row = sampler.distribution(reader.read(prefix, rows=1), prefix)[0].tolist()
                before = mass.pop(text)
                mass.update({(*text, token): before * p for token, p in enumerate(row)})
    return mass


def sample(
    pair: Pair, prompt: list[int], config: RunConfig, length: int, samples: int
) -> Counter[tuple[int, ...]]:
    """How often each text came, of the same prompt continued ``samples`` times."""
    seen: Counter[tuple[int, ...]] = Counter()
    with prefilled(pair, prompt, config) as tiers:
        for _ in range(samples):
            tokens = list(prompt)
            while len(tokens) < len(prompt) + length:
                tiers.full.begin_pass()
                tokens += tiers.root.round(tokens, len(prompt) + length - len(tokens)).tokens
            seen[tuple(tokens[len(prompt) :])] += 1
            tiers.root.settle(len(prompt) - 1)
    return seen
