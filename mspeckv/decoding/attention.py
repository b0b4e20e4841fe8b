"""One attention function for every decoder: fold the query groups, call the stock kernel.

Inside a pass of ours transformers finds `attend` under a model's attention's name
(`mspeckv.models.interface`). It leaves windows, capped scores and sinks to `mspeckv.kv.scores`, and
differs from the stock ``sdpa`` entry in three ways:

* Grouped-query heads are folded into the query length, ``[B, Hkv*G, Q, D] -> [B, Hkv, G*Q, D]``,
  so K and V are read once, where the stock entry repeats them G times in every verification.
* What a cache layer shows has a kernel of its own kind: the stock one reads floats, accelerations
  bring others (`mspeckv.context.Pass.kernels`).
* A *watcher* is shown each layer, so that retrieval learns what tier 2 looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from mspeckv.context import Kernels, Masks, Pass, Products, Shown, Watcher, carrying, current
from mspeckv.kv.codec import OtherAxes
from mspeckv.kv.floats import Floats
from mspeckv.kv.kinds import ALL
from mspeckv.kv.latent import Latents
from mspeckv.kv.layers import fold_groups
from mspeckv.kv.scores import Scores, attend_recent, causal_mask
from mspeckv.kv.windows import Recent, floats_seen
from mspeckv.models.interface import check_options, index_of, sight_of


@contextmanager
def reading(
    model: PreTrainedModel,
    watcher: Watcher | None = None,
    kernels: Kernels | None = None,
    products: Products | None = None,
) -> Iterator[None]:
    """Inside, this thread's forward passes of ``model`` are passes of ours.

    Arguments as of `mspeckv.context.Pass`. They compute in the model's own dtype: no autocast.
    """
    one = Pass(attend, watcher, kernels or {}, products or {})
    with carrying(one), torch.autocast(model.device.type, enabled=False):
        yield


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
        key: ``[B, Hkv, K, D]``, as the layer's cache returned it; so ``value``.
        attention_mask: must be None: the engine never pads.

    Returns:
        ``[B, Q, Hkv*G, D]`` and None (no attention weights).

    Raises:
        ValueError: a padding mask, or a bias of positions, which no kernel here adds.
    """
    check_options(attention_mask, options)
    now, layer = current() or Pass(attend), index_of(module)
    shown = now.shown.pop(layer, None) or floats_seen(key, value, sight_of(module))
    if isinstance(shown, Latents):
        shown.keys = key
    if now.watcher is not None:
        now.watcher(layer, query, shown)
    if isinstance(shown, Latents):
        # the model has expanded them
        out = attend_floats(query, Floats(key, value), scaling, now.masks)
    else:
        out = attend_shown(now, query, shown, scaling, Scores.of(options))
    shown.release()
    return out.transpose(1, 2).contiguous(), None


def attend_shown(
    now: Pass,
    query: torch.Tensor,
    shown: Shown,
    scale: float | None,
    scores: Scores | None = None,
) -> torch.Tensor:
    """Attention by the kernel for what a layer shows; see `mspeckv.context.Kernel`."""
    if isinstance(shown, OtherAxes):
        # scores are the same in any axes, as long as both sides are turned
        out = attend_shown(now, shown.codec.turn(query), shown.inner, scale, scores)
        return shown.codec.turn_back(out)
    if scores is not None or isinstance(shown, Recent):
        seen = shown if isinstance(shown, Recent) else Recent(*shown.whole(), ALL)
        return attend_recent(query, seen, scale, now.masks, scores)
    kernel = now.kernels.get(type(shown))
    if kernel is not None:
        return kernel(query, shown, scale, now.masks)
    return attend_floats(query, Floats(*shown.whole()), scale, now.masks)


def attend_floats(
    query: torch.Tensor, shown: Floats, scale: float | None, masks: Masks
) -> torch.Tensor:
    """The stock kernel over every key; see `mspeckv.context.Kernel`."""
    heads, length = query.shape[1:3]
    kv_heads, past = shown.key.shape[1], shown.tokens - length
    if length > 1 and past == 0:
        # a fresh prompt: the kernel's own causal path needs no mask in memory
        return scaled_dot_product_attention(
            query, *shown.whole(), scale=scale, is_causal=True, enable_gqa=heads != kv_heads
        )
    groups = heads // kv_heads
    folded = fold_groups(query, kv_heads)
    key = length, past, groups
    if key not in masks:
        masks[key] = causal_mask(length, past, groups, query) if length > 1 else None
    out = scaled_dot_product_attention(folded, *shown.whole(), attn_mask=masks[key], scale=scale)
    return out.reshape(*query.shape[:3], out.shape[-1])
