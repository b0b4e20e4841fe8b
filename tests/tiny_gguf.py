"""Tiny GGUF files, written from random models as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.convert_slow_tokenizer import bytes_to_unicode

VOCAB = 320
"""Bytes, a few joined ones, two special tokens and padding."""
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "rms_norm_eps": 1e-5,
}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "LlamaConfig", {}),
    "llama-tied": ("llama", "LlamaConfig", {"tie_word_embeddings": True}),
    "mistral": ("llama", "MistralConfig", {"sliding_window": None}),
    "qwen2": ("qwen2", "Qwen2Config", {}),
    # a head dim that is neither hidden / heads nor the class's own
    "qwen3": ("qwen3", "Qwen3Config", {"head_dim": 32}),
    "gemma3": ("gemma3", "Gemma3TextConfig", {
        "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8, "num_hidden_layers": 7
    }),
    "phi3": ("phi3", "Phi3Config", {}),
}  # fmt: skip
"""The file's architecture, the configuration class, and what differs from `SHAPE`."""


def tiny_model(kind: str, **changes: Any) -> PreTrainedModel:
    """A random model of a kind of `KINDS`."""
    _, name, own = KINDS[kind]
    special = {"bos_token_id": 300, "eos_token_id": 301, "pad_token_id": None}
    config = getattr(transformers, name)(**{**SHAPE, **special, **own, **changes})
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    for name, weight in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(weight, 0.5, 0.2)
    return model


_ADD: dict[type, Any] = {
    str: GGUFWriter.add_string, float: GGUFWriter.add_float32, int: GGUFWriter.add_uint32,
}  # fmt: skip


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    arch: str,
    parts: int = 1,
    quantized: bool = False,
    factors: Mapping[str, torch.Tensor] | None = None,
    **extra: str | float,
) -> list[Path]:
    """The model as a GGUF, or as ``parts`` of one; returns the files.

    Args:
        factors: of positions, by tensor.
        extra: metadata; ``__`` stands for a dot.
    """
    tensors = _tensors(model, arch)
    tensors |= {
        f"{name}.weight": values.float().numpy() for name, values in (factors or {}).items()
    }
    names = [f"{path.stem}-{n + 1:05}-of-{parts:05}.gguf" for n in range(parts)]
    files = [path.with_name(name) for name in names] if parts > 1 else [path]
    for place, file in enumerate(files):
        writer = GGUFWriter(file, arch)
        if parts > 1:
            writer.add_uint16("split.no", place)
            writer.add_uint16("split.count", parts)
            writer.add_int32("split.tensors.count", len(tensors))
        if place == 0:
            _metadata(writer, model.config, arch)
            for name, value in extra.items():
                key, add = name.replace("__", "."), _ADD[type(value)]
                add(writer, key, value)
        for name, values in list(tensors.items())[place::parts]:
            if quantized and values.ndim == 2:
                packed = quantize(values, GGMLQuantizationType.Q8_0)
                writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
            else:
                writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return files


def _tensors(model: PreTrainedModel, arch: str) -> dict[str, np.ndarray[Any, Any]]:
    config = model.config
    kind = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == arch)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    out = {}
    for name, weight in model.named_parameters():
        values = weight.detach().float().numpy()
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_" in name else config.num_key_value_heads
            halves = values.reshape(heads, 2, values.shape[0] // heads // 2, -1)
            values = halves.swapaxes(1, 2).reshape(values.shape)
        if arch == "gemma3" and "norm.weight" in name:
            values = values + 1
        base, _, suffix = name.rpartition(".")
        out[f"{names.get_name(base)}.{suffix}"] = np.ascontiguousarray(values)
    return out


def _metadata(writer: GGUFWriter, config: Any, arch: str) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if arch in ("llama", "phi3"):
        writer.add_rope_dimension_count(head_dim)
    else:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if arch == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    if arch == "llama":
        writer.add_vocab_size(config.vocab_size)
    of_words = arch in ("gemma3", "phi3")
    tokens, kinds, more = (word_pieces if of_words else byte_tokens)(config.vocab_size)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if of_words:
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([float(score) for score in more])
        writer.add_unk_token_id(299)
        writer.add_pad_token_id(300)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2" if arch.startswith("qwen") else "llama-bpe")
        writer.add_token_merges([str(merge) for merge in more])
    writer.add_bos_token_id(300)
    writer.add_eos_token_id(301)
    writer.add_add_bos_token(of_words)


def byte_tokens(vocab: int) -> tuple[list[str], list[int], list[str]]:
    """Tokens of a byte-level tokenizer padded to ``vocab``, their types, and merges."""
    pairs = ("t h", "i n", "e r", "a n", "o n", "Ġ t", "Ġ a", "o u", "i s", "i t")
    merges = [*pairs, *(f"{a} {b}" for a in ("th", "in") for b in "abcdefghijklmnopq")]
    tokens = [*bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in merges)]
    return (*_with_padding(tokens, [1] * len(tokens), vocab), merges)


def word_pieces(vocab: int) -> tuple[list[str], list[int], list[float]]:
    """Tokens of a tokenizer of pieces, their types, and scores: higher is joined first."""
    bytes_of = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = [*"▁abcdefghijklmnopqrstuvwxyz.,"]
    pieces = ["▁t", "▁th", "▁the", "in", "▁a", "is", "er", "on", "it", "ou", "an", "re"]
    tokens = [*bytes_of, *letters, *pieces]
    tokens += [f"<rare{place}>" for place in range(299 - len(tokens))] + ["<unk>"]
    kinds = [6] * len(bytes_of) + [1] * (len(tokens) - len(bytes_of) - 1) + [2]
    tokens, kinds = _with_padding(tokens, kinds, vocab)
    return tokens, kinds, [-float(place) for place in range(vocab)]


def _with_padding(tokens: list[str], kinds: list[int], vocab: int) -> tuple[list[str], list[int]]:
    """With the two special tokens, as Qwen calls them, and padding, as llama.cpp calls it."""
    assert len(tokens) == 300
    tokens = [*tokens, "<|endoftext|>", "<|im_end|>"]
    padding = [f"[PAD{place}]" for place in range(len(tokens), vocab)]
    return [*tokens, *padding], [*kinds, 3, 3, *(5 for _ in padding)]
