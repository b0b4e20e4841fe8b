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

transformers' look-up answers with it only in a thread that is inside `reading`: for everyone else a
model stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from mspeckv.config import refuse
from mspeckv.context import Pass, Products, Watcher, carrying, current
from mspeckv.kv.packed import attend_packed
from mspeckv.split import (
    PIECE,
    causal_mask,
    piece_mask,
    pieces,
    split_attention,
    static_attention,
)
from mspeckv.static import StaticKeys

_UNSUPPORTED = ("softcap", "sliding_window", "position_bias", "s_aux")

Attention = Callable[..., Any]


def check_interface(model: PreTrainedModel, field: str) -> None:
    """Refuse a ``model`` whose attention transformers does not look up.

    Args:
        model: any decoder.
        field: ``"target"`` or ``"draft"``, for the complaint.

    Raises:
        ValueError: the model class does not support transformers' attention interface.
    """
    if not getattr(model, "_supports_attention_backend", False):
        allowed = "use a decoder that supports transformers' attention interface"
        raise refuse(field, type(model).__name__, allowed)


@contextmanager
def reading(
    model: PreTrainedModel,
    watcher: Watcher | None = None,
    static: StaticKeys | None = None,
    products: Products | None = None,
) -> Iterator[None]:
    """Inside, this thread's forward passes of ``model`` are passes of ours; see `mspeckv.context`.

    They compute in the model's own dtype: autocast, where the caller has it on, is off inside.

    Args:
        model: any decoder.
        watcher: shown every layer.
        static: which keys are filled, where every slot of a cache is handed to attention.
        products: what to multiply by instead of linear layers' own weights (`mspeckv.products`).
    """
    one = Pass(watcher, static, products or {}, takes_packed=static is None)
    with carrying(one), torch.autocast(model.device.type, enabled=False):
        yield


def fold_groups(query: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """``[B, Hkv*G, Q, D] -> [B, Hkv, G*Q, D]``: the heads that share a KV head become rows."""
    batch, heads, length, dim = query.shape
    return query.reshape(batch, kv_heads, heads // kv_heads * length, dim)


def _mask_of_pass(
    now: Pass, length: int, past: int, groups: int, cut: int, like: torch.Tensor
) -> torch.Tensor | None:
    """The causal mask, built once per pass: every layer of a pass has the same shape."""
    key = (length, past, groups, cut)
    if key not in now.masks:
        if cut > 1:
            now.masks[key] = piece_mask(cut, length, past, groups, like)
        else:
            now.masks[key] = causal_mask(length, past, groups, like) if length > 1 else None
    return now.masks[key]


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
    now = current() or Pass()
    if now.watcher is not None:
        now.watcher(_layer_index(module), query, key, value)
    batch, heads, length, _ = query.shape
    blocks = now.packed.pop(_layer_index(module), None) if now.packed else None
    kv_heads, past = key.shape[1], key.shape[2] - length
    if blocks is not None:
        folded = fold_groups(query, kv_heads)
        out = attend_packed(folded, key, value, blocks, length, scaling)
        blocks.release()
        out = out.reshape(batch, heads, length, out.shape[-1])
    elif now.static is not None:
        folded = fold_groups(query, kv_heads)
        keys: StaticKeys = now.static
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
        mask = _mask_of_pass(now, length, past, heads // kv_heads, cut, query)
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


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The engine's passes are never padded, and `attend` knows which keys come when."""


def _answer_by_thread() -> None:
    """Have transformers' look-ups of attention and masks answer ours inside a pass of ours.

    They are looked up anew in every layer, so a thread without a pass gets the model's own, and
    no model's configuration is touched. A model that is being compiled gets its own as well.
    """
    own_attention, own_mask = AttentionInterface.get_interface, AttentionMaskInterface.__getitem__

    def attention(self: AttentionInterface, name: str, default: Attention) -> Attention:
        ours = not torch.compiler.is_compiling() and current() is not None
        return attend if ours else own_attention(self, name, default)

    def mask(self: AttentionMaskInterface, name: str) -> Callable[..., Any]:
        ours = not torch.compiler.is_compiling() and current() is not None
        return _no_mask if ours else own_mask(self, name)

    AttentionInterface.get_interface = attention
    AttentionMaskInterface.__getitem__ = mask


_answer_by_thread()
