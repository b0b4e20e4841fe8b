"""Latent attention: what is cached has no heads, what is attended over has."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import DeepseekV2Config, DeepseekV3Config, PretrainedConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from mspeckv import KVPolicy, Pair, RunConfig, Sampling, Speculation, generate
from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.api import engine_of
from mspeckv.context import Shown
from mspeckv.decoding.fits import predict
from mspeckv.kv.latent import Latents
from mspeckv.kv.layers import fold_groups
from mspeckv.kv.link import CopyEngine
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.record import Ledger
from mspeckv.testing.exactness import chi_square, expect, prefilled, sample
from tests.random_models import SHAPE, random_prompt
from tests.test_windows import assert_exact

pytestmark = pytest.mark.usefixtures("one_thread")
LATENT, ROTARY = 24, 8
WIDTHS: dict[str, Any] = {
    "kv_lora_rank": LATENT, "qk_rope_head_dim": ROTARY, "qk_nope_head_dim": 12, "v_head_dim": 16,
    "q_lora_rank": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1, "head_dim": ROTARY,
}  # fmt: skip
KINDS: dict[str, type[PretrainedConfig]] = {"v2": DeepseekV2Config, "v3": DeepseekV3Config}


@cache
def latent_pair(family: str = "v3", vocab: int = 64, layers: int = 4, **own: int) -> Pair:
    """A random target, and as draft the target itself, which sees less there."""
    sizes = {**SHAPE, "num_key_value_heads": 4, "num_hidden_layers": layers, **WIDTHS, **own}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(KINDS[family](**sizes, vocab_size=vocab)).eval()
    return Pair.of(model, model)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_placements_lengths_and_codecs(data: st.DataObject) -> None:
    draw = data.draw
    pair = latent_pair(draw(st.sampled_from(list(KINDS))))
    on_chip = draw(st.integers(0, pair.layers))
    resident = draw(st.integers(0, pair.layers - on_chip))
    bits: Any = draw(st.sampled_from([8, 4, "full"]))
    policy = KVPolicy(
        bits, on_chip, resident, block=draw(st.sampled_from([8, 16])), group=16,
        tail=draw(st.integers(0, 12)),
        codec="kivi" if bits == "full" else draw(st.sampled_from(["kivi", "rotated"])),
    )  # fmt: skip
    speculation = Speculation(
        gamma=draw(st.integers(1, 8)), draft_gamma=draw(st.integers(1, 4)), chunk=4,
        tier1=draw(st.sampled_from(["retrieval", "hot chunks"])),
        retrieval=draw(st.sampled_from(["attention", "attended"])),
        budget=draw(st.integers(16, 40)), recent=draw(st.integers(0, 6)),
        refresh=draw(st.integers(0, 6)), sinks=draw(st.integers(0, 4)),
        window=draw(st.integers(8, 30)),
    )  # fmt: skip
    prompt = random_prompt(draw(st.integers(2, 70)))
    assert_exact(pair, prompt, policy, speculation, draw(st.integers(1, 20)))


def test_samples_are_distributed_as_the_targets() -> None:
    pair, prompt = latent_pair("v2", 5, 2), random_prompt(12, vocab=5)
    config = RunConfig(
        method="mspeckv", new_tokens=8, policy=KVPolicy(8, block=8, tail=0),
        speculation=Speculation(2, 1, chunk=2, budget=6, recent=2, sinks=1, window=8),
        sampling=Sampling(temperature=1.3, top_p=0.9),
    )  # fmt: skip
    assert chi_square(sample(pair, prompt, config, 2, 500), expect(pair, prompt, config, 2)) > 1e-4


def test_a_layer_keeps_the_latent_and_no_heads() -> None:
    pair = latent_pair()
    assert pair.kv_shape.token_bytes == (LATENT + ROTARY) * 4
    config = RunConfig(method="mspeckv", new_tokens=40, policy=KVPolicy(8, 1, 1, block=16))
    with prefilled(pair, random_prompt(120), config) as tiers:
        need = predict(engine_of(pair), pair, config, 120)
        for place, size in tiers.full.allocated().items():
            assert getattr(need, place) == size, place
        looking = tiers.prefilled[-1].seat.onlooker
        assert looking is not None
        assert looking.bytes == need.retrieval
    assert need.on_chip == 160 * (LATENT + ROTARY) * 4


def test_the_heads_choose_chunks_together_by_the_keys_that_they_compare() -> None:
    pair, prompt = latent_pair(), random_prompt(101)
    speculation = Speculation(4, 2, chunk=4, budget=24, recent=4)
    config = RunConfig(method="mspeckv", new_tokens=8, speculation=speculation)
    seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    watch = RetrievalCache.watch

    def watching(self: RetrievalCache, layer: int, query: torch.Tensor, shown: Shown) -> None:
        assert isinstance(shown, Latents)
        assert shown.keys is not None
        seen[layer] = query[:, :, -16:].clone(), shown.keys.clone()
        watch(self, layer, query, shown)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RetrievalCache, "watch", watching)
        with prefilled(pair, prompt, config) as tiers:
            looking = tiers.prefilled[-1].seat.onlooker
            assert isinstance(looking, RetrievalCache)
            plan, chosen = looking.plan, {k: v.clone() for k, v in looking.chosen.items()}
    for layer, (query, key) in seen.items():
        chunks = key[0, :, : plan.chunks * plan.chunk].unflatten(1, (plan.chunks, plan.chunk))
        asked = fold_groups(query, key.shape[1])[0] * key.shape[-1] ** -0.5
        mass = (asked @ chunks.mean(2).transpose(1, 2)).softmax(-1).sum((0, 1))
        mass[0] = torch.inf
        assert chosen[layer].tolist() == [mass.topk(plan.chosen).indices.sort().values.tolist()]


def test_a_prompt_is_read_again_not_kept() -> None:
    """Queries ask of keys that only a pass expands."""
    pair, kept = latent_pair(), Prefills()
    config = RunConfig(method="mspeckv", new_tokens=8)
    with prefilled(pair, random_prompt(20), config) as tiers, torch.inference_mode():
        tiers.full.restart()
        with CopyEngine(Ledger(), None) as link:
            kept.read(tiers.prefilled[-1:], random_prompt(19), link)
        assert tiers.full.length == 19
    assert kept.bytes == 0


@pytest.mark.parametrize(("latent", "rotary"), [(8, 8), (23, 8)])
def test_widths_that_cannot_be_halved_are_refused(latent: int, rotary: int) -> None:
    with pytest.raises(ValueError, match=rf"widths \({latent}, {rotary}\)"):
        latent_pair(kv_lora_rank=latent)


def test_one_shape_for_every_pass_is_refused() -> None:
    with pytest.raises(ValueError, match="latents"):
        dense = latent_pair(first_k_dense_replace=4)
        generate(dense, random_prompt(8), method="autoregressive", exact="bitwise")
