"""Attention folding, the streaming cache's sinks, and what retrieval keeps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from transformers import LlamaForCausalLM
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mspeckv import Speculation
from mspeckv.decoding.attention import attend, reading
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.kv.floats import Floats
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import ChunkPlan
from mspeckv.kv.streaming import StreamingCache
from mspeckv.kv.tier1 import Tier1Room
from mspeckv.record import Ledger, Recorder
from tests.random_models import random_pair, random_prompt

CPU = torch.device("cpu")


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize(("new", "past"), [(1, 30), (5, 30), (17, 0), (1, 1500), (9, 1501)])
def test_folded_attention_is_plain_attention(
    heads: int, kv_heads: int, new: int, past: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, heads, new, 8, generator=generator)
    key = torch.randn(1, kv_heads, past + new, 8, generator=generator)
    value = torch.randn(1, kv_heads, past + new, 8, generator=generator)
    module = torch.nn.Module()
    module.layer_idx = 0  # type: ignore[assignment]  # any attribute will do
    out, _ = attend(module, query, key, value, None, scaling=0.3)
    repeats = heads // kv_heads
    scores = query @ key.repeat_interleave(repeats, 1).transpose(2, 3) * 0.3
    seen = torch.ones(new, past + new).tril(past).bool()
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    expected = (weights @ value.repeat_interleave(repeats, 1)).transpose(1, 2)
    assert torch.allclose(out, expected, atol=1e-5)


def test_a_padding_mask_is_refused() -> None:
    x = torch.zeros(1, 1, 2, 8)
    with pytest.raises(ValueError, match="padding mask"):
        attend(torch.nn.Module(), x, x, x, torch.zeros(1, 1, 2, 2))


def test_a_model_keeps_its_own_attention_outside_a_pass() -> None:
    model = random_pair().target
    looked_up = partial(ALL_ATTENTION_FUNCTIONS.get_interface, "sdpa", None)
    own, own_mask = looked_up(), ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
    with pytest.raises(RuntimeError, match="inside"), reading(model):
        assert looked_up() is attend
        assert ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is not own_mask
        with ThreadPoolExecutor(1) as another:
            assert another.submit(looked_up).result() is own
        raise RuntimeError("inside")
    assert looked_up() is own
    assert ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is own_mask
    assert model.config._attn_implementation == "sdpa"


def test_moved_sinks_equal_rotated_sinks() -> None:
    """Reading the sinks again at shifted positions is rotary rotation by the shift."""
    pair = random_pair()
    model, shape = pair.target, KVShape.of(pair.target.config, pair.dtype)
    assert isinstance(model, LlamaForCausalLM)
    cache = StreamingCache(shape, sinks=3, window=10, slack=4, device=CPU)
    reader = ModelReader(Seat(0, "draft", model, cache, Recorder(Ledger())))
    tokens = random_prompt(60)
    with torch.no_grad():
        reader.prefill(tokens[:8])
        before = [layer.buffer.key[:, :, :3].clone() for layer in cache.layers]
        for end in range(9, 40):
            reader.read(tokens[:end], rows=1)
        shift = torch.tensor([[cache.dropped]])
        cos, sin = model.model.rotary_emb(before[0], shift)
    assert cache.dropped > 0
    assert cache.length == 39
    for layer, old in zip(cache.layers, before, strict=True):
        half = old.shape[-1] // 2
        rotated = torch.cat([-old[..., half:], old[..., :half]], -1)
        expected = old * cos + rotated * sin
        assert torch.allclose(layer.buffer.key[:, :, :3], expected, atol=1e-4)


def test_a_window_that_holds_everything_is_the_full_model() -> None:
    pair, tokens = random_pair(), random_prompt(40)
    shape = KVShape.of(pair.target.config, pair.dtype)
    cache = StreamingCache(shape, sinks=2, window=64, slack=8, device=CPU)
    reader = ModelReader(Seat(0, "draft", pair.target, cache, Recorder(Ledger())))
    with torch.no_grad():
        reader.prefill(tokens[:30])
        reader.read(tokens[:35], rows=1)
        reader.settle(32)
        out = reader.read(tokens, rows=4)
        expected = pair.target(torch.tensor([tokens])).logits[0, -4:]
    assert torch.allclose(out, expected, atol=1e-3)


@pytest.mark.parametrize("prompt", [1, 5, 40, 41, 200, 333])
@pytest.mark.parametrize(("budget", "chunk", "recent"), [(64, 8, 32), (40, 8, 5), (33, 3, 0)])
def test_the_budget_is_kept_and_filled(prompt: int, budget: int, chunk: int, recent: int) -> None:
    plan = ChunkPlan.of(Speculation(budget=budget, chunk=chunk, recent=recent), prompt)
    assert plan.kept <= budget
    assert plan.kept > min(prompt, budget) - chunk
    assert plan.rest >= min(recent, prompt)
    assert plan.chosen <= plan.chunks


def test_retrieval_keeps_the_first_chunk_and_the_chunks_that_queries_match() -> None:
    shape = KVShape(layers=1, heads=1, dim=8, dtype=torch.float32)
    speculation = Speculation(budget=32, chunk=4, recent=8, refresh=1)
    cache = RetrievalCache(Tier1Room(shape, speculation, prompt=100, grown=20), None, CPU)
    generator = torch.Generator().manual_seed(0)
    key = torch.randn(1, 1, 100, 8, generator=generator) * 0.1
    value = torch.arange(100.0).view(1, 1, 100, 1).expand(1, 1, 100, 8).contiguous()
    key[:, :, 40:44, 0] = 9.0
    key[:, :, 60:64, 1] = 9.0
    query = torch.zeros(1, 2, 100, 8)
    query[..., 0] = 5.0
    cache.watch(0, query, Floats(key, value))
    assert {0, 10} <= set(cache.chosen[0][0].tolist())
    kept, _ = cache.plan.kept, cache.layers[0].length
    values = cache.layers[0].buffer.value[0, 0, :kept, 0].tolist()
    assert values[:4] == [0, 1, 2, 3]
    assert {40, 41, 42, 43} <= set(values)
    assert values[-8:] == list(range(92, 100))
    # A later pass looks elsewhere: the refresh follows it and adopts the new token's own KV.
    new = torch.full((1, 1, 1, 8), 7.0)
    later = torch.zeros(1, 2, 1, 8)
    later[..., 1] = 5.0
    cache.watch(0, later, Floats(torch.cat([key, new], 2), torch.cat([value, new], 2)))
    cache.settle(101)
    assert 15 in cache.chosen[0][0].tolist()
    assert cache.length == 101
    assert cache.layers[0].buffer.value[0, 0, kept, 0] == 7.0
