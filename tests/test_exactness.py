"""Speculation must not change what comes out: greedy, token for token."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.workloads import KINDS, prompt_of
from mspeckv import KVPolicy, Pair, Sampling, Speculation, documents, generate
from mspeckv.settings import METHODS, Width
from tests.random_models import random_pair, random_prompt

GREEDY = Sampling(temperature=0, stop_at_eos=False)


@st.composite
def policies(draw: st.DrawFn, layers: int = 4) -> KVPolicy:
    bits: Width = draw(st.sampled_from([8, 4, 2, "full"]))
    on_chip = draw(st.integers(0, layers))
    resident = draw(st.integers(0, layers - on_chip))
    block = draw(st.sampled_from([8, 16, 32, 64]))
    kind = draw(st.sampled_from(["plain", "nibble", "lru"]))
    bits = 8 if kind == "nibble" else bits
    return KVPolicy(
        bits,
        on_chip,
        resident,
        block=block,
        group=draw(st.sampled_from([8, 16])),
        tail=draw(st.integers(0, 40)),
        k_bits=draw(st.sampled_from([None, 8, 4])) if kind == "plain" and bits != "full" else None,
        nibble=kind == "nibble",
        residency="lru" if kind == "lru" else "static",
    )


@st.composite
def speculations(draw: st.DrawFn) -> Speculation:
    chunk, recent = draw(st.integers(1, 9)), draw(st.integers(0, 12))
    return Speculation(
        gamma=draw(st.one_of(st.integers(1, 10), st.just("auto"))),
        draft_gamma=draw(st.one_of(st.integers(1, 5), st.just("auto"))),
        tier0=draw(st.sampled_from(["draft", "draft", "lookup", "none"])),
        draft_vocab=draw(st.sampled_from([0, 16])),
        draft_threshold=draw(st.sampled_from([0.0, 0.3])),
        budget=recent + 2 * chunk + draw(st.integers(0, 60)),
        chunk=chunk,
        refresh=draw(st.integers(0, 12)),
        recent=recent,
        sinks=draw(st.integers(0, 5)),
        window=draw(st.integers(8, 40)),
    )


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    policy=policies(),
    speculation=speculations(),
    prompt=st.integers(2, 120),
    new_tokens=st.integers(1, 40),
    seed=st.integers(0, 50),
    draw_nibble=st.booleans(),
)
def test_greedy_output_is_autoregressive_output(
    family: str,
    policy: KVPolicy,
    speculation: Speculation,
    prompt: int,
    new_tokens: int,
    seed: int,
    draw_nibble: bool,
) -> None:
    pair, ids = random_pair(family), random_prompt(prompt, seed=seed)
    for own in {policy, replace(policy, bits="full", k_bits=None, nibble=False)}:
        methods = [m for m in METHODS if m != "triforce" or own.lossless]
        if speculation.tier0 == "none":
            methods.remove("vanilla")
        tier1 = "nibble" if own.nibble and draw_nibble else "retrieval"
        speculation = replace(speculation, tier1=tier1)
        outputs = {
            method: generate(
                pair,
                ids,
                method=method,
                new_tokens=new_tokens,
                policy=own,
                speculation=speculation,
                sampling=GREEDY,
            ).tokens
            for method in methods
        }
        assert len(outputs["autoregressive"]) == new_tokens
        assert set(outputs.values()) == {outputs["autoregressive"]}, (own, outputs)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4, "full"])
def test_greedy_output_of_the_real_pair(pair: Pair, bits: Width) -> None:
    prompt = documents.load_document("python-reference", pair.tokenizer, 300)
    policy = KVPolicy(bits, on_chip=10, resident=10)
    speculation = Speculation(budget=96)
    outputs = [
        generate(
            pair,
            prompt,
            method=method,
            new_tokens=24,
            policy=policy,
            speculation=speculation,
            sampling=GREEDY,
        ).tokens
        for method in METHODS
        if method != "triforce" or bits == "full"
    ]
    assert len(set(outputs)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_output_of_the_real_pair_over_long_prompts(pair: Pair, kind: str) -> None:
    assert pair.tokenizer is not None
    prompt = prompt_of(kind, pair.tokenizer, 1024)
    policy = KVPolicy(8, on_chip=10, resident=10)
    outputs = [
        generate(pair, prompt, method=method, new_tokens=64, policy=policy, sampling=GREEDY).tokens
        for method in ("autoregressive", "mspeckv")
    ]
    assert outputs[0] == outputs[1]


def test_a_budget_that_holds_the_prompt_makes_tier_1_as_good_as_tier_2() -> None:
    summary = generate(
        random_pair(),
        random_prompt(90),
        method="triforce",
        new_tokens=60,
        speculation=Speculation(budget=128, recent=8),
        sampling=GREEDY,
    )
    middle = next(tier for tier in summary.tiers if tier.tier == 1)
    assert middle.proposed == middle.accepted > 0


def test_self_speculation_needs_no_draft() -> None:
    whole = random_pair()
    alone = Pair.of(whole.target)
    out = [
        generate(alone, random_prompt(90), method=method, new_tokens=30, sampling=GREEDY)
        for method in ("autoregressive", "triforce")
    ]
    assert out[0].tokens == out[1].tokens
    assert [tier.tier for tier in out[1].tiers] == [1, 2]


def test_same_seed_same_tokens_other_seed_other_tokens() -> None:
    pair, prompt = random_pair(), random_prompt(60)
    runs = [
        generate(pair, prompt, new_tokens=40, sampling=Sampling(1.0, 1.0, seed)).tokens
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]
