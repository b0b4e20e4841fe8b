"""Long keys cut into pieces, so that few KV heads keep every core busy.

torch's CPU kernel gives one task to each batch row and head: a pass over 3 KV heads leaves one of
two cores idle a third of the time, and 13 of 16 cores all the time. Cutting the keys makes more
tasks, and the pieces are joined exactly by their log-sum-exps (Flash-Decoding: Dao et al., 2023;
the identity is section 3.1 of FlashAttention, arXiv 2205.14135):

    out = sum_i w_i out_i,   w = softmax_i(lse_i)
"""

from __future__ import annotations

import torch

LEAST_KEYS = 1024
"""Shorter keys are not worth a second kernel call."""
_PIECE = 256
"""Fewest keys of a piece."""
_TASKS_PER_THREAD = 4

_kernel = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def pieces(heads: int, past: int, device: torch.device) -> int:
    """How many pieces to cut ``past`` keys of ``heads`` KV heads into; 1 for not at all."""
    if _kernel is None or device.type != "cpu" or past < LEAST_KEYS:
        return 1
    threads = torch.get_num_threads()
    wanted = -(-_TASKS_PER_THREAD * threads // heads)
    # tasks are dealt out evenly, so a number that threads divide leaves none of them waiting
    wanted = next(n for n in range(wanted, wanted + threads) if heads * n % threads == 0)
    return max(1, min(wanted, past // _PIECE))


def split_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    past: int,
    count: int,
    mask: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor:
    """Attention whose first keys are read in ``count`` pieces by the stock kernel.

    Args:
        query: ``[1, H, R, D]``.
        key: ``[1, H, K, D]``.
        value: same shape.
        past: keys that every row sees.
        count: pieces, from `pieces`.
        mask: additive ``[R, K]`` or None where every row sees every key.
        scale: of the scores; None for ``D ** -0.5``.

    Returns:
        ``[1, H, R, D]``.
    """
    assert _kernel is not None
    heads, rows, dim = query.shape[1:]
    end = past // count * count
    many, many_lse = _kernel(
        query[0, :, None].expand(heads, count, rows, dim),
        key[0, :, :end].unflatten(1, (count, -1)),
        value[0, :, :end].unflatten(1, (count, -1)),
        scale=scale,
    )
    if end < key.shape[2]:
        rest = mask[:, end:] if mask is not None else None
        last, last_lse = _kernel(
            query, key[:, :, end:], value[:, :, end:], attn_mask=rest, scale=scale
        )
        many = torch.cat([many, last.transpose(0, 1)], 1)
        many_lse = torch.cat([many_lse, last_lse.transpose(0, 1)], 1)
    out: torch.Tensor = (many * many_lse.softmax(1)[..., None].to(many.dtype)).sum(1)
    return out[None]
