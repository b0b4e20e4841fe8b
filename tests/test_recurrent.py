"""Recurrent layers: states that go back, and kept tokens that are read again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    BambaConfig,
    DynamicCache,
    FalconH1Config,
    GraniteMoeHybridConfig,
    JambaConfig,
    Lfm2Config,
    OlmoHybridConfig,
    PretrainedConfig,
    Qwen3NextConfig,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from mspeckv import KVPolicy, Pair, RunConfig, Sampling, Speculation
from mspeckv.api import engine_of
from mspeckv.context import Pass, carrying
from mspeckv.decoding.attention import attend
from mspeckv.decoding.fits import predict
from mspeckv.kv.recurrent import StateLayer
from mspeckv.testing.exactness import chi_square, expect, prefilled, sample
from tests.random_models import SHAPE, random_prompt, tiny_configs
from tests.test_windows import assert_exact

pytestmark = pytest.mark.usefixtures("one_thread")
LINEAR = ["linear_attention", "full_attention"] * 2
SSM = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 8, "mamba_n_groups": 1}
FAMILIES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "lfm2": (Lfm2Config, {"layer_types": ["conv", "full_attention"] * 2}),
    "qwen3-next": (Qwen3NextConfig, {
        "layer_types": LINEAR, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "head_dim": 16, "num_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32}),
    "bamba": (BambaConfig, {"attn_layer_indices": [1, 3], **SSM}),
    "granite": (GraniteMoeHybridConfig, {
        "layer_types": LINEAR, "shared_intermediate_size": 64, "num_local_experts": 4,
        "num_experts_per_tok": 2, **SSM}),
    "olmo-hybrid": (OlmoHybridConfig, {"layer_types": LINEAR}),
    "jamba": (JambaConfig, {
        "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "num_experts": 2}),
    "falcon-h1": (FalconH1Config, {"mamba_d_ssm": 128, "mamba_chunk_size": 16, **SSM}),
}  # fmt: skip
BESIDE = {"falcon-h1"}
"""Those whose every layer attends as well."""


@cache
def hybrid_pair(family: str, vocab: int = 64, layers: int = 4) -> Pair:
    """A random target, and as draft the target itself, which sees less there."""
    kind, own = FAMILIES[family]
    own = {name: value[:layers] if name == "layer_types" else value for name, value in own.items()}
    torch.manual_seed(0)
    config = kind(**{**SHAPE, "vocab_size": vocab, "num_hidden_layers": layers, **own,
                     "tie_word_embeddings": False})  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    return Pair.of(model, model)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_exact(family: str) -> None:
    pair = hybrid_pair(family)
    assert pair.layers == (4 if family in BESIDE else 2)
    assert pair.kv_shape.depth == 4
    speculation = Speculation(4, 2, chunk=4, budget=16, recent=4, sinks=2, window=8)
    for policy in (KVPolicy("full"), KVPolicy(8, block=16, tail=4)):
        assert_exact(pair, random_prompt(30), policy, speculation, 24)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_placements_lengths_and_borders(data: st.DataObject) -> None:
    draw = data.draw
    pair = hybrid_pair(draw(st.sampled_from(["lfm2", "olmo-hybrid", "bamba", "jamba", *BESIDE])))
    on_chip = draw(st.integers(0, pair.layers))
    policy = KVPolicy(
        draw(st.sampled_from([8, 4, "full"])), on_chip, draw(st.integers(0, pair.layers - on_chip)),
        block=draw(st.sampled_from([8, 16])), tail=draw(st.integers(0, 12)), group=16,
    )  # fmt: skip
    speculation = Speculation(
        gamma=draw(st.one_of(st.integers(1, 10), st.just("auto"))),
        draft_gamma=draw(st.integers(1, 5)),
        tier0=draw(st.sampled_from(["draft", "lookup"])),
        chunk=4, budget=draw(st.integers(16, 40)), recent=draw(st.integers(0, 6)),
        refresh=draw(st.integers(0, 6)), sinks=draw(st.integers(0, 4)),
        window=draw(st.integers(8, 30)),
    )  # fmt: skip
    prompt = random_prompt(draw(st.integers(2, 70)))
    assert_exact(pair, prompt, policy, speculation, draw(st.integers(1, 30)))


@pytest.mark.parametrize("family", ["lfm2", *BESIDE])
def test_a_long_run_slides_the_drafts_window(family: str) -> None:
    speculation = Speculation(3, 2, sinks=2, window=8)
    pair = hybrid_pair(family, layers=2)
    assert_exact(pair, random_prompt(20), KVPolicy("full"), speculation, 110)


@pytest.mark.parametrize("family", ["olmo-hybrid", *BESIDE])
def test_nibble_mode(family: str) -> None:
    policy = KVPolicy(8, block=16, tail=8, nibble=True)
    speculation = Speculation(gamma=4, tier1="nibble")
    assert_exact(hybrid_pair(family), random_prompt(30), policy, speculation, 24)


def test_samples_are_distributed_as_the_targets() -> None:
    pair, prompt = hybrid_pair("falcon-h1", 5, 1), random_prompt(12, vocab=5)
    config = RunConfig(
        method="mspeckv", new_tokens=8, policy=KVPolicy(8, block=8, tail=0),
        speculation=Speculation(2, 1, chunk=2, budget=6, recent=2, sinks=1, window=8),
        sampling=Sampling(temperature=1.3, top_p=0.9),
    )  # fmt: skip
    assert chi_square(sample(pair, prompt, config, 2, 500), expect(pair, prompt, config, 2)) > 1e-4


def test_the_state_is_that_of_the_kept_tokens() -> None:
    """Whatever was guessed and taken back, it is plain decoding's, up to rounding."""
    pair, prompt = hybrid_pair("bamba"), random_prompt(40)
    sampling, states = Sampling(0, stop_at_eos=False), []
    for method in ("autoregressive", "mspeckv"):
        config = RunConfig(
            method=method, new_tokens=60, policy=KVPolicy(8, block=8, tail=0), sampling=sampling,
            speculation=Speculation(4, 2, chunk=4, budget=16, recent=4),
        )  # fmt: skip
        with prefilled(pair, prompt, config) as tiers:
            text = list(prompt)
            while len(text) < 90:
                tiers.full.begin_pass()
                text += tiers.root.round(text, 90 - len(text)).tokens
            tiers.full.begin_pass()
            # what is still to be read again, and the last token
            tiers.prefilled[-1].read(text, rows=1)
            assert {state.length for state in tiers.full.states} == {90}
            states.append([part.clone() for s in tiers.full.states for part in s.contents])
    for one, other in zip(*states, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_a_state_goes_back_to_the_newest_copy_before() -> None:
    layer = StateLayer(1, reach=4)
    for length in range(10):
        layer.mark()
        layer.update_conv_state(torch.full((1, 1, 2), float(length)))
        layer.length = length + 1
    layer.settle(8)
    assert layer.length == 8
    assert layer.conv_states[0].flatten().tolist() == [7.0, 7.0]
    with pytest.raises(RuntimeError, match="no state of 2 tokens"):
        layer.settle(2)


@torch.no_grad()
def test_layers_are_read_token_by_token_in_our_passes_alone() -> None:
    """Jamba's begin anew with every pass of several tokens."""
    model = hybrid_pair("jamba").target
    mixer = next(part for part in model.modules() if hasattr(part, "conv1d"))
    before, after = torch.randn(2, 1, 3, SHAPE["hidden_size"]).unbind(0)

    def read(parts: Sequence[torch.Tensor], ours: bool) -> torch.Tensor:
        cache = DynamicCache(config=model.config)
        with carrying(Pass(attend)) if ours else nullcontext():
            mixer(before, cache)
            return torch.cat([mixer(part, cache) for part in parts], 1)

    one_by_one = read(after.split(1, 1), ours=False)
    torch.testing.assert_close(read([after], ours=True), one_by_one)
    assert not torch.allclose(read([after], ours=False), one_by_one, rtol=0.1)


def test_states_that_depend_on_passes_are_refused() -> None:
    """Nemotron-H bounds the time steps of a pass of several tokens."""
    model = AutoModelForCausalLM.from_config(next(tiny_configs("nemotron_h")))
    with pytest.raises(ValueError, match="its states depend on how a text came in passes"):
        Pair.of(model)


@pytest.mark.parametrize("family", ["lfm2", "jamba", *BESIDE])
def test_the_memory_check_knows_the_states(family: str) -> None:
    """Every copy that a run holds, of every tier."""
    pair, prompt = hybrid_pair(family), random_prompt(40)
    for method in ("autoregressive", "vanilla", "mspeckv"):
        config = RunConfig(
            method=method, new_tokens=60, policy=KVPolicy(8, block=8, tail=0),
            sampling=Sampling(0, stop_at_eos=False),
            speculation=Speculation(4, 2, chunk=4, budget=16, recent=4, sinks=2, window=8),
        )  # fmt: skip
        with prefilled(pair, prompt, config) as tiers:
            caches = [reader.cache for reader in tiers.prefilled]
            caches += [looking for one in tiers.prefilled if (looking := one.seat.onlooker)]
            text, most = list(prompt), 0
            while len(text) < 90:
                tiers.full.begin_pass()
                text += tiers.root.round(text, 90 - len(text)).tokens
                held = [(one, 1 + len(one.marks)) for cache in caches for one in cache.states]
                most = max(most, sum(count * one.bytes_to_read(0) for one, count in held))
        need = predict(engine_of(pair), pair, config, len(prompt))
        assert 0 < most <= need.states
        assert method != "autoregressive" or most == need.states
        assert need.device - replace(need, states=0).device == need.states
