"""What a model's KV cache is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PretrainedConfig


@dataclass(frozen=True)
class KVShape:
    """What a model's KV cache is made of.

    Attributes:
        layers: decoder layers N.
        heads: KV heads H.
        dim: head dim D.
        dtype: compute dtype.
    """

    layers: int
    heads: int
    dim: int
    dtype: torch.dtype

    @classmethod
    def of(cls, config: PretrainedConfig, dtype: torch.dtype, ranks: int = 1) -> KVShape:
        """The KV shape of a transformers configuration; its heads are shared out over ``ranks``."""
        text = config.get_text_config()
        heads = text.num_attention_heads
        dim = getattr(text, "head_dim", None) or text.hidden_size // heads
        kv_heads = getattr(text, "num_key_value_heads", None) or heads
        return cls(text.num_hidden_layers, kv_heads // ranks, dim, dtype)

    @property
    def token_bytes(self) -> int:
        """Unquantized K and V bytes of one token in one layer."""
        return 2 * self.heads * self.dim * self.dtype.itemsize
