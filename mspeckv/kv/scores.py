"""Attention of layers that see a window, cap their scores, or have sinks.

The query groups are folded as everywhere (`mspeckv.decoding.attention`), and long passes are done
some rows at a time, so that no mask and no score is larger than a block of rows needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from mspeckv.context import Masks
from mspeckv.kv.kinds import ALL, Sight
from mspeckv.kv.layers import fold_groups
from mspeckv.kv.windows import Recent

_ROWS = 512
"""Queries of a long pass that are done at a time."""


@dataclass(frozen=True)
class Scores:
    """What a layer does to its scores before the softmax.

    Attributes:
        cap: scores become ``cap * tanh(score / cap)`` (Gemma 2, arXiv 2408.00118).
        sinks: ``[Hq]`` scores of a sink that has no value (gpt-oss, arXiv 2508.10925).
    """

    cap: float | None = None
    sinks: torch.Tensor | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Scores | None:
        """What transformers passes to attention; None where scores stay as they are."""
        cap, sinks = options.get("softcap"), options.get("s_aux")
        return None if cap is None and sinks is None else cls(cap, sinks)

    def weights(self, scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Attention ``[1, H, G * Q, K]`` of scores of that shape."""
        if self.cap is not None:
            scores = self.cap * (scores / self.cap).tanh()
        if mask is not None:
            scores = scores + mask
        if self.sinks is None:
            return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)
        heads, rows = scores.shape[1:3]
        # a head's rows stand together
        own = self.sinks.reshape(1, -1, 1, 1).expand(-1, -1, heads * rows // len(self.sinks), 1)
        joint = torch.cat([scores, own.reshape(1, heads, rows, 1).to(scores.dtype)], -1)
        return joint.softmax(-1, dtype=torch.float32)[..., :-1].to(scores.dtype)


def attend_recent(
    query: torch.Tensor,
    shown: Recent,
    scale: float | None,
    masks: Masks,
    scores: Scores | None = None,
) -> torch.Tensor:
    """Attention over what each query sees; see `mspeckv.context.Kernel`."""
    length, kv_heads, sight = query.shape[2], shown.key.shape[1], shown.sight
    groups, begin = query.shape[1] // kv_heads, shown.tokens - length
    done = []
    for start in range(begin, shown.tokens, _ROWS):
        end = min(start + _ROWS, shown.tokens)
        first = max(shown.first, sight.first(start))
        seen = slice(first - shown.first, end - shown.first)
        rows = query[:, :, start - begin : end - begin]
        mask, key = None, (start - first, end - first, groups, sight.tokens, sight.first(start))
        if end - start > 1:
            if key not in masks:
                masks[key] = sight_mask(sight, start, first, end, groups, query)
            mask = masks[key]
        folded = fold_groups(rows, kv_heads)
        keys, values = shown.key[:, :, seen], shown.value[:, :, seen]
        if scores is None:
            out = scaled_dot_product_attention(folded, keys, values, attn_mask=mask, scale=scale)
        else:
            # the sums that the stock kernel would do
            by = query.shape[-1] ** -0.5 if scale is None else scale
            products = folded @ keys.transpose(2, 3) * by
            out = scores.weights(products, mask) @ values
        done.append(out.reshape(*rows.shape[:3], out.shape[-1]))
    return torch.cat(done, 2) if len(done) > 1 else done[0]


def causal_mask(length: int, past: int, groups: int, like: torch.Tensor) -> torch.Tensor:
    """Additive mask ``[G * Q, past + Q]``: query i of a group sees keys up to ``past + i``."""
    return sight_mask(ALL, past, 0, past + length, groups, like)


def sight_mask(
    sight: Sight, start: int, first: int, end: int, groups: int, like: torch.Tensor
) -> torch.Tensor:
    """Additive ``[G * Q, K]`` for queries at ``[start, end)`` over keys at ``[first, end)``."""
    rows = torch.arange(start, end, device=like.device)[:, None]
    keys = torch.arange(first, end, device=like.device)[None]
    unseen = keys > rows
    if sight.tokens:
        # how far back a row sees
        back = rows % sight.tokens if sight.chunked else rows.new_tensor(sight.tokens - 1)
        unseen = unseen | (keys < rows - back)
    mask = torch.zeros(unseen.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(unseen, float("-inf")).repeat(groups, 1)
