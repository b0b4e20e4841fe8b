"""A tiny random pair, for tests where only the arithmetic matters."""

from __future__ import annotations

from functools import cache

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mspeckv.models.pair import Pair
from mspeckv.settings import Speculation

SMALL = Speculation(
    gamma=3, draft_gamma=2, budget=24, chunk=4, recent=8, refresh=2, sinks=2, window=16
)
"""Tiers small enough that a prompt of 60 tokens fills them."""


@cache
def tiny_pair(layers: int = 3, vocab: int = 64, seed: int = 0) -> Pair:
    """A random target, and as draft the target without its last layer: sometimes right."""
    shape = LlamaConfig(
        vocab_size=vocab, hidden_size=64, intermediate_size=96, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
        # wide weights, so that greedy choices are far from ties
        initializer_range=0.3, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        target = LlamaForCausalLM(shape)
    draft = LlamaForCausalLM(LlamaConfig(**{**shape.to_dict(), "num_hidden_layers": layers - 1}))
    draft.load_state_dict(target.state_dict(), strict=False)
    return Pair.of(target.eval(), draft.eval())


def tiny_prompt(length: int = 61, vocab: int = 64, seed: int = 0) -> list[int]:
    """Random token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab, (length,), generator=generator).tolist()
