"""From a llama-architecture GGUF file to a folder that `transformers` loads by itself.

The file is read with the `gguf` package alone rather than through transformers' ``gguf_file``,
whose needs and results change between releases; the folder holds plain formats that all of them
read: float32 safetensors, ``config.json`` and a fast tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH, GGUFReader, get_tensor_name_map
from gguf.quants import dequantize
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

_CONTROL_TOKEN = 3
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def convert_gguf(gguf: Path, folder: Path, quiet: bool = False) -> None:
    """Write ``gguf`` to ``folder`` as float32 safetensors, configuration and tokenizer.

    Args:
        gguf: a llama-architecture model with a byte-level BPE tokenizer: its hash has been checked.
        folder: an existing folder; files in it are overwritten.
        quiet: no progress bar.

    Raises:
        OSError: a file cannot be written.
    """
    reader = GGUFReader(gguf)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = _config(fields, tied="output.weight" not in tensors)
    with torch.device("meta"):
        names = [name for name, _ in LlamaForCausalLM(LlamaConfig(**config)).named_parameters()]
    stored = get_tensor_name_map(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    weights: dict[str, torch.Tensor] = {}
    for name in tqdm(names, unit="tensor", desc="converting", disable=quiet):
        tensor = tensors[str(stored.get_name(name, (".weight",)))]
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        part = name.split(".")[-2]
        if part in heads:
            values = _split_rotary(values, heads[part])
        weights[name] = torch.from_numpy(np.ascontiguousarray(values))
    try:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{folder / 'model.safetensors'}: {error}") from error
    _write_json(folder / "config.json", config)
    text = _tokenizer(fields).to_str(pretty=True)
    (folder / "tokenizer.json").write_bytes(text.encode())
    own = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": fields["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": fields["tokenizer.chat_template"],
        **special_tokens(fields, fields["tokenizer.ggml.tokens"]),
    }
    _write_json(folder / "tokenizer_config.json", own)


def _split_rotary(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """GGUF interleaves each head's rotary pairs; transformers wants them as two halves."""
    rows, columns = values.shape
    pairs = values.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _config(fields: dict[str, Any], tied: bool) -> dict[str, Any]:
    heads = fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.embedding_length"] // heads,
        "max_position_embeddings": fields["llama.context_length"],
        # Stored as float32: six digits give back the number its authors wrote.
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "dtype": "float32",
    }


def _tokenizer(fields: dict[str, Any]) -> Tokenizer:
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    splits: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    if fields.get("tokenizer.ggml.pre") == "smollm":
        splits.insert(0, pre_tokenizers.Digits(individual_digits=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    control = (token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in control]
    )
    return tokenizer


def special_tokens(fields: dict[str, Any], tokens: list[str]) -> dict[str, str]:
    """A tokenizer's tokens with a meaning of their own, as far as a file's ``fields`` tell."""
    return {
        f"{short}_token": tokens[fields[key]]
        for short, long in _SPECIAL.items()
        if (key := f"tokenizer.ggml.{long}_token_id") in fields
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_bytes(json.dumps(content, indent=2).encode() + b"\n")
