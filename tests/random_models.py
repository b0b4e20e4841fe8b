"""Tiny random decoders, for tests where only the arithmetic matters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import product
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from mspeckv import KVPolicy, Pair
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape
from mspeckv.settings import Width

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


def block_codec(
    heads: int,
    dim: int,
    block: int,
    bits: Width | tuple[Width, Width],
    group: int,
    dtype: torch.dtype = torch.float32,
) -> BlockCodec:
    """The engine's codec for blocks of such a shape."""
    keys, values = bits if isinstance(bits, tuple) else (bits, bits)
    policy = KVPolicy(k_bits=keys, v_bits=values)
    # a codec works with more than a policy allows
    for name, value in (("block", block), ("group", group)):
        object.__setattr__(policy, name, value)
    return BlockCodec(KVShape(1, heads, dim, dtype), policy)


TINY: dict[str, Any] = {
    "vocab_size": 64, "initializer_range": 0.3, "init_std": 0.3,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff", "dff", "ffn_hidden_size",
                     "decoder_ffn_dim", "encoder_ffn_dim"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers",
                     "encoder_layers"), 3),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads",
                     "decoder_attention_heads", "encoder_attention_heads"), 4),
    "num_key_value_heads": 2, "num_kv_heads": 2, "head_dim": 16, "rotary_dim": 8,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"), 128),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 16, "linear_head_dim": 16, "linear_num_heads": 4,
    **dict.fromkeys(("bos_token_id", "pad_token_id", "decoder_start_token_id"), 0),
    "eos_token_id": None, "sliding_window": 9, "attention_chunk_size": 9,
}  # fmt: skip
"""Sizes by the names that configurations have for them."""
_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 4]}
_LINEAR = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
_SSM = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 8, "mamba_n_groups": 1}
_LATENT = {"head_dim": 8, "num_key_value_heads": 4}
"""Only the rotary part is rotated, and every head has keys of its own."""
_UNGROUPED = {"n_group": 1, "topk_group": 1}
_OWN: dict[str, dict[str, Any]] = {
    "axk1": _UNGROUPED,
    "bamba": {"attn_layer_indices": [1], **_SSM},
    "granitemoehybrid": {**_LINEAR, **_SSM},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    **dict.fromkeys(
        (
            "qwen3_5",
            "qwen3_5_moe",
            "qwen3_5_moe_text",
            "qwen3_5_text",
            "qwen3_next",
            "qwen4_exp",
            "qwen4_exp_text",
            "kimi_linear",
            "olmo_hybrid",
        ),
        _LINEAR,
    ),
    "bailing_hybrid": {**_LINEAR, **_UNGROUPED},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}},
    "dots1": {"n_shared_experts": 1},
    # else a token is followed by itself
    **{
        name: {"tie_word_embeddings": False}
        for name in ("biogpt", "gemma2", "gemma3", "gemma3_text", "minicpm3")
    },
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_chunk_size": 16, **_SSM},
    "gpt_bigcode": {"num_key_value_heads": 1},
    "gpt_neo": {"attention_types": [[["global"], 3]]},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local"] * 3},
    "zamba": {"num_hidden_layers": 4, "attn_layer_offset": 0},
    "zaya": {"num_experts_per_tok": 1},
}
"""What a family wants otherwise."""
_LEFT = tuple(
    left + ids
    for ids in ((), ("eos_token_id",))
    for left in ((), ("sliding_window",), ("head_dim",), ("max_position_embeddings",))
)


def tiny_configs(model_type: str, full: bool = False) -> Iterator[PretrainedConfig]:
    """Configurations of a family as small as its names tell, the likeliest first.

    Args:
        model_type: its name in transformers.
        full: make every layer attend in full; else what the family has, if it can be.
    """
    kind = CONFIG_MAPPING[model_type]
    layers: dict[str, Any] = {"layer_types": ["full_attention"] * 3}
    for kinds, heads, left in product([layers] if full else [{}, layers], (2, 4), _LEFT):
        if full and "sliding_window" not in left:
            continue  # nobody looks at it
        with suppress(Exception):
            sizes = _tiny(kind, left, heads)
            text = sizes.get("text_config", sizes)
            if "kv_lora_rank" in text:
                text.update(_LATENT)
            text.update(_OWN.get(model_type, {}))
            text.update(kinds)
            if "tie_word_embeddings" in text:
                sizes["tie_word_embeddings"] = text["tie_word_embeddings"]
            yield kind(**sizes)


def _tiny(kind: type[PretrainedConfig], left: tuple[str, ...], heads: int) -> dict[str, Any]:
    """The settings of `TINY` that a configuration, and those inside of it, know."""
    own = kind()
    known = {name for name in TINY if name in kind.attribute_map or _has(own, name)}
    sizes: dict[str, Any] = {name: TINY[name] for name in known - set(left)}
    if "num_key_value_heads" in sizes:
        sizes["num_key_value_heads"] = heads
    for name in kind.sub_configs:
        inner = getattr(own, name, None)
        if isinstance(inner, PretrainedConfig):
            sizes[name] = {"model_type": inner.model_type, **_tiny(type(inner), left, heads)}
    return sizes


def _has(config: PretrainedConfig, name: str) -> bool:
    """Whether a setting is there, and one for all layers."""
    try:
        return hasattr(config, name)
    except (NotImplementedError, ValueError):
        return False
