"""An inflated model says what the small one says, at the large one's size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.inflate import DecoderShape, inflate, stretch
from mspeckv import KVPolicy, Pair, Sampling, generate
from mspeckv.models.checks import cache_argument
from tests.random_models import random_pair, random_prompt

SHAPE = DecoderShape(layers=6, heads=7, head_dim=32, hidden=160, intermediate=200)


def small_llama(kv_heads: int = 2, tied: bool = True) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=kv_heads, max_position_embeddings=256,
        initializer_range=0.3, tie_word_embeddings=tied,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("positions", [256, 1024])
def test_logits_are_those_of_the_small_model(kv_heads: int, tied: bool, positions: int) -> None:
    small = stretch(small_llama(kv_heads, tied), positions)
    large = inflate(small, SHAPE)
    ids = torch.tensor([random_prompt(250)])
    with torch.inference_mode():
        wanted, found = small(ids).logits, large(ids).logits
    assert float(wanted.std()) > 0.5
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))


def test_the_shape_is_the_large_one_and_idle_heads_keep_real_keys() -> None:
    large = inflate(small_llama(), SHAPE)
    pair = Pair.of(large)
    assert (pair.layers, pair.kv_heads, pair.head_dim) == (6, 7, 32)
    with torch.inference_mode():
        cache = DynamicCache()
        large(torch.tensor([random_prompt(20)]), **{cache_argument(large): cache})
    for layer in cache.layers:
        assert layer.keys.shape == (1, 7, 20, 32)
        assert float(layer.keys[:, 4:].std()) > 0.01
        assert float(layer.values[:, 4:].std()) > 0.01


def test_stretching_leaves_the_model_as_it_was_and_shares_its_weights() -> None:
    small = small_llama()
    before = small.config.to_dict()
    long = stretch(small, 1024)
    assert small.config.to_dict() == before
    assert long.config.max_position_embeddings == 1024
    assert long.model.embed_tokens.weight.data_ptr() == small.model.embed_tokens.weight.data_ptr()
    assert long.lm_head.weight.data_ptr() == long.model.embed_tokens.weight.data_ptr()
    ids = torch.tensor([random_prompt(40)])
    with torch.inference_mode():
        assert not torch.equal(small(ids).logits, long(ids).logits)


def test_a_small_draft_guesses_for_an_inflated_target() -> None:
    small = small_llama()
    pair = Pair.of(inflate(small, SHAPE), small)
    run = generate(
        pair, random_prompt(120), method="vanilla", new_tokens=24, policy=KVPolicy(8, block=16),
        sampling=Sampling(0, stop_at_eos=False),
    )  # fmt: skip
    # the draft is the target in small, so most guesses hold
    assert run.accepted_per_round > 3


@pytest.mark.parametrize(
    ("field", "value"),
    [("layers", 3), ("heads", 3), ("head_dim", 8), ("hidden", 32), ("intermediate", 64)],
)
def test_a_shape_too_small_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"shape\.{field}: {value} is not allowed"):
        inflate(small_llama(), replace(SHAPE, **{field: value}))


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="model: .*Qwen2.* is not allowed"):
        inflate(random_pair("qwen2").target, SHAPE)
