"""One attention function for every decoder: fold the query groups, call the stock kernel.

transformers lets a model's attention be swapped by name (`AttentionInterface`). Ours differs from
the stock ``sdpa`` entry in five ways, and touches no kernel:

* Grouped-query heads are folded into the query length, ``[B, Hkv*G, Q, D] -> [B, Hkv, G*Q, D]``,
  so K and V are read once instead of being repeated G times (the stock entry repeats them whenever
  a mask is needed, that is in every verification).
* On a CPU, long keys are cut into pieces to keep every core busy (`mspeckv.split`).
* On a CPU, packed blocks may come as they are (`mspeckv.kv.packed`).
* A pass of fixed shape (`mspeckv.static`) brings its own account of which keys are filled.
* It shows each layer's queries, keys and values to a *watcher*, which is how retrieval
  (`mspeckv.kv.retrieval`) learns what tier 2 looked at without a second pass.

The function is switched on only inside `reading`, so a model used elsewhere stays as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from mspeckv.kv.packed import accepting_packed, attend_packed, packed_before
from mspeckv.split import (
    PIECE,
    causal_mask,
    piece_mask,
    pieces,
    split_attention,
    static_attention,
)
from mspeckv.static import StaticKeys

NAME = "mspeckv"

Watcher = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Called once per layer with (layer index, query [B,H,Q,D], key [B,Hkv,K,D], value)."""

_UNSUPPORTED = ("softcap", "sliding_window", "position_bias", "s_aux")


class _Reading(threading.local):
    """What the current thread's forward pass carries to the attention function."""

    watcher: Watcher | None = None
    static: StaticKeys | None = None
    mask: torch.Tensor | None = None
    mask_key: tuple[int, ...] = ()


_reading = _Reading()


def install(model: PreTrainedModel) -> None:
    """Check that ``model`` lets its attention be swapped.

    Raises:
        ValueError: the model class does not support transformers' attention interface.
    """
    if not getattr(model, "_supports_attention_backend", False):
        raise ValueError(
            f"target: {type(model).__name__} is not allowed; use a decoder that supports "
            "transformers' attention interface"
        )


@contextmanager
def reading(
    model: PreTrainedModel, watcher: Watcher | None = None, static: StaticKeys | None = None
) -> Iterator[None]:
    """Run the forward passes inside with this module's attention; restore the model's own after.

    Args:
        model: any decoder.
        watcher: shown every layer.
        static: which keys are filled, where every slot of a cache is handed to attention.
    """
    config = model.config.get_text_config()
    own = config._attn_implementation
    config._attn_implementation = NAME
    _reading.watcher, _reading.mask, _reading.mask_key = watcher, None, ()
    _reading.static = static
    try:
        with accepting_packed(static is None):
            yield
    finally:
        config._attn_implementation = own
        _reading.watcher = _reading.mask = _reading.static = None


def fold_groups(query: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """``[B, Hkv*G, Q, D] -> [B, Hkv, G*Q, D]``: the heads that share a KV head become rows."""
    batch, heads, length, dim = query.shape
    return query.reshape(batch, kv_heads, heads // kv_heads * length, dim)


def _mask_of_pass(
    length: int, past: int, groups: int, cut: int, like: torch.Tensor
) -> torch.Tensor | None:
    """The causal mask, built once per pass: every layer of a pass has the same shape."""
    key = (length, past, groups, cut)
    if _reading.mask_key != key:
        if cut > 1:
            _reading.mask = piece_mask(cut, length, past, groups, like)
        else:
            _reading.mask = causal_mask(length, past, groups, like) if length > 1 else None
        _reading.mask_key = key
    return _reading.mask


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of the newest ``Q`` tokens over ``K`` keys, the last ``Q`` being their own.

    Args:
        query: ``[B, Hkv*G, Q, D]``.
        key: ``[B, Hkv, K, D]``.
        value: ``[B, Hkv, K, D]``.
        attention_mask: must be None: the engine never pads.

    Returns:
        ``[B, Q, Hkv*G, D]`` and None (no attention weights).

    Raises:
        ValueError: the layer asks for something the stock kernel would not do exactly.
    """
    asked = [name for name in _UNSUPPORTED if options.get(name) is not None]
    if asked or attention_mask is not None:
        raise ValueError(
            f"attention: {asked or 'a padding mask'} is not allowed; use a decoder with plain "
            "causal attention and an unpadded prompt"
        )
    if _reading.watcher is not None:
        _reading.watcher(_layer_index(module), query, key, value)
    batch, heads, length, _ = query.shape
    blocks = packed_before(key)
    kv_heads, past = key.shape[1], key.shape[2] - length
    if blocks is not None:
        folded = fold_groups(query, kv_heads)
        out = attend_packed(folded, key, value, blocks, length, scaling)
        blocks.release()
        out = out.reshape(batch, heads, length, out.shape[-1])
    elif _reading.static is not None:
        folded = fold_groups(query, kv_heads)
        keys = _reading.static
        out = static_attention(folded, key, value, keys.settled, keys.mask, scaling)
        out = out.reshape(batch, heads, length, out.shape[-1])
    elif length > 1 and past == 0:
        # A fresh prompt: the kernel's own causal path needs no mask in memory.
        out = scaled_dot_product_attention(
            query, key, value, scale=scaling, is_causal=True, enable_gqa=heads != kv_heads
        )
    else:
        folded = fold_groups(query, kv_heads)
        few = batch == 1 and length <= PIECE and value.shape[-1] == query.shape[-1]
        cut = pieces(kv_heads, past, query.device) if few else 1
        mask = _mask_of_pass(length, past, heads // kv_heads, cut, query)
        if cut > 1:
            out = split_attention(folded, key, value, cut, mask, scaling)
        else:
            out = scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
        out = out.reshape(batch, heads, length, out.shape[-1])
    return out.transpose(1, 2).contiguous(), None


def _layer_index(module: torch.nn.Module) -> int:
    index = module.layer_idx
    assert isinstance(index, int)
    return index


AttentionInterface.register(NAME, attend)
