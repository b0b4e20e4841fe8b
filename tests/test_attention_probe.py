"""The report on a choice is about the choice that a run makes, and its masses are attention's."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from mspeckv import AttentionProbe, Pair, RunConfig, Speculation, documents, retrieval_report
from mspeckv.decoding.attention import reading
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.shape import KVShape
from mspeckv.kv.tier1 import Tier1Room
from mspeckv.testing.exactness import prefilled
from tests.random_models import random_pair, random_prompt
from tests.test_latent import latent_pair

PAIR = random_pair()
PROMPT = random_prompt(150)
SPECULATION = Speculation(budget=48, chunk=4, recent=8)


@pytest.fixture(scope="module")
def probe() -> AttentionProbe:
    return AttentionProbe(PAIR, PROMPT)


@pytest.mark.parametrize("name", ["attention", "newest", "attended"])
def test_the_choice_is_that_of_a_runs_cache(probe: AttentionProbe, name: str) -> None:
    speculation = Speculation(budget=48, chunk=4, recent=8, retrieval=name)
    report = probe.report(speculation)
    shape = KVShape.of(PAIR.target.config, PAIR.dtype)
    cache = RetrievalCache(Tier1Room(shape, speculation, len(PROMPT) - 1, 8), None, PAIR.device)
    with torch.inference_mode(), reading(PAIR.target, cache.watch):
        PAIR.target(torch.tensor([PROMPT[:-1]]), use_cache=False)
    for layer in range(PAIR.layers):
        assert report.chosen[layer].tolist() == cache.chosen[layer].tolist()
    assert report.plan == cache.plan


def test_heads_of_a_latent_choose_together_as_in_a_run() -> None:
    pair = latent_pair()
    config = RunConfig(method="mspeckv", new_tokens=8, speculation=SPECULATION)
    report = AttentionProbe(pair, PROMPT).report(SPECULATION)
    with prefilled(pair, PROMPT, config) as tiers:
        looking = tiers.prefilled[-1].seat.onlooker
        assert isinstance(looking, RetrievalCache)
        for layer, chosen in looking.chosen.items():
            heads = report.chosen[layer].tolist()
            assert heads == chosen.tolist() * len(heads)


def test_masses_are_the_models_own_attention(probe: AttentionProbe) -> None:
    model = PAIR.target
    own = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        with torch.inference_mode():
            out = model(torch.tensor([PROMPT]), output_attentions=True)
    finally:
        model.config._attn_implementation = own
    report = probe.report(SPECULATION)
    whole = report.plan.chunks * report.plan.chunk
    for layer, weights in enumerate(out.attentions):
        by_head = weights[0, :, -1].unflatten(0, (2, 2)).mean(1)
        chunks = by_head[:, :whole].unflatten(1, (-1, 4)).sum(-1)
        np.testing.assert_allclose(report.mass[layer], chunks, atol=1e-4)
        np.testing.assert_allclose(report.rest[layer], by_head[:, whole:].sum(-1), atol=1e-4)


def test_masses_add_up_and_no_choice_beats_the_best(probe: AttentionProbe) -> None:
    report = probe.report(SPECULATION)
    np.testing.assert_allclose(report.mass.sum(-1) + report.rest, 1, atol=1e-5)
    assert report.kept.sum(-1).min() == report.kept.sum(-1).max() == report.plan.chosen
    assert (report.captured <= report.best + 1e-5).all()
    assert (report.best <= 1 + 1e-5).all()
    assert report.kept[..., 0].all()
    everything = probe.report(Speculation(budget=4096, chunk=4, recent=8))
    np.testing.assert_allclose(everything.captured, 1, atol=1e-5)
    assert (everything.captured >= report.captured - 1e-5).all()


def test_seen_is_the_share_of_tokens_kept(probe: AttentionProbe) -> None:
    report = probe.report(SPECULATION)
    assert (report.seen(0, 4) == 1).all()
    last = report.plan.prompt
    assert (report.seen(last - report.plan.rest, last) == 1).all()
    middle = report.seen(40, 48)
    kept = report.kept[..., 10:12].mean(-1)
    np.testing.assert_allclose(middle, kept)
    with pytest.raises(ValueError, match="span"):
        report.seen(8, 8)
    with pytest.raises(ValueError, match="span"):
        report.seen(0, last + 1)


@pytest.mark.parametrize("prompt", [[1, 2, 3], list(range(30))])
def test_a_prompt_without_a_chunk_is_refused(prompt: list[int]) -> None:
    make = partial(retrieval_report, PAIR, prompt, Speculation())
    with pytest.raises(ValueError, match="use more than recent \\+ chunk = 40 tokens"):
        make()


def test_a_prompt_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 2048 tokens"):
        AttentionProbe(PAIR, random_prompt(2049))


@pytest.mark.slow
def test_retrieval_finds_a_needle_that_the_newest_chunks_miss(pair: Pair) -> None:
    tokenizer = pair.tokenizer
    assert tokenizer is not None
    needle = "The secret number of the lighthouse is 7481."
    question = "The secret number of the lighthouse is"
    prompt = documents.needle_in_haystack(needle, 0.5, tokenizer, 512, question=question)
    hidden = tokenizer(needle, add_special_tokens=False)["input_ids"]
    start = next(i for i in range(len(prompt)) if prompt[i + 1 : i + 6] == hidden[1:6])
    probe = AttentionProbe(pair, prompt)
    seen = {
        name: probe.report(Speculation(budget=128, retrieval=name)).seen(start, start + 16).mean()
        for name in ("attention", "newest")
    }
    assert seen["newest"] == 0
    assert seen["attention"] > 0.1
