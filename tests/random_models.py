"""Tiny random decoders, for tests where only the arithmetic matters."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PretrainedConfig

from mspeckv import Pair

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    # Wide weights, so that greedy choices are far from ties and drafts disagree.
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama-multi-head": ("LlamaConfig", {"num_key_value_heads": 4}),
    "llama-multi-query": ("LlamaConfig", {"num_key_value_heads": 1}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "sliding_window": None}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 32}),
    "phi": ("PhiConfig", {}),
    "phi3": ("Phi3Config", {}),
    # head dims that are not hidden / heads, nor multiples of a quantization group
    "gemma": ("GemmaConfig", {"num_key_value_heads": 1, "head_dim": 40}),
    "gpt-neox": ("GPTNeoXConfig", {"num_key_value_heads": 4}),
    "gpt2": ("GPT2Config", {"n_embd": 64, "n_head": 4, "num_key_value_heads": 4}),
    "olmo": ("OlmoConfig", {"num_key_value_heads": 4}),
    "olmo2": ("Olmo2Config", {}),
    "granite": ("GraniteConfig", {}),
    "cohere": ("CohereConfig", {}),
    "starcoder2": ("Starcoder2Config", {"sliding_window": None}),
}
"""Configuration class, and what differs from `SHAPE`."""


@cache
def random_pair(
    family: str = "llama",
    layers: int = 4,
    vocab: int = 64,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Pair:
    """A random target, and as draft the target without its last layer: sometimes right."""
    name, own = FAMILIES[family]
    shape = {**SHAPE, "vocab_size": vocab, **own}
    kind = getattr(transformers, name)
    target = _build(kind(**shape, num_hidden_layers=layers), seed, dtype)
    draft = _build(kind(**shape, num_hidden_layers=layers - 1), seed, dtype)
    draft.load_state_dict(target.state_dict(), strict=False)
    return Pair.of(target, draft)


def _build(config: PretrainedConfig, seed: int, dtype: torch.dtype) -> Any:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=dtype)


def random_prompt(length: int, vocab: int = 64, seed: int = 0) -> list[int]:
    """Uniform token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab, (length,), generator=generator).tolist()
