"""Tiny random decoders, for tests where only the arithmetic matters."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config

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
CONFIGS: dict[str, type[PretrainedConfig]] = {"llama": LlamaConfig, "qwen2": Qwen2Config}


@cache
def random_pair(
    family: str = "llama", layers: int = 4, vocab: int = 64, seed: int = 0, kv_heads: int = 2
) -> Pair:
    """A random target, and as draft the target without its last layer: sometimes right."""
    shape = {**SHAPE, "vocab_size": vocab, "num_key_value_heads": kv_heads}
    target = _build(CONFIGS[family](**shape, num_hidden_layers=layers), seed)
    draft = _build(CONFIGS[family](**shape, num_hidden_layers=layers - 1), seed)
    draft.load_state_dict(target.state_dict(), strict=False)
    return Pair.of(target, draft)


def _build(config: PretrainedConfig, seed: int) -> Any:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def random_prompt(length: int, vocab: int = 64, seed: int = 0) -> list[int]:
    """Uniform token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab, (length,), generator=generator).tolist()
