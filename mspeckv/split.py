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
PIECE = 256
"""Fewest keys of a piece, and most queries for which keys are cut."""
_TASKS_PER_THREAD = 2


_kernel = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def pieces(heads: int, past: int, device: torch.device) -> int:
    """How many pieces to cut ``past`` keys of ``heads`` KV heads into; 1 for not at all."""
    # torch's kernels for CUDA split long keys by themselves
    if _kernel is None or device.type != "cpu" or past < LEAST_KEYS:
        return 1
    return max(1, min(even_pieces(heads, torch.get_num_threads()), past // PIECE))


def even_pieces(heads: int, threads: int) -> int:
    """Pieces of each of ``heads`` KV heads that keep ``threads`` busy to the end."""
    wanted = -(-_TASKS_PER_THREAD * threads // heads)
    # tasks are dealt out evenly, so a number that threads divide leaves none of them waiting
    return next(n for n in range(wanted, wanted + threads) if heads * n % threads == 0)


def split_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    count: int,
    mask: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor:
    """Attention whose keys are read in ``count`` pieces by one call of the stock kernel.

    Args:
        query: ``[1, H, R, D]``.
        key: ``[1, H, K, D]``.
        value: same shape.
        count: pieces, from `pieces`.
        mask: from `piece_mask`.
        scale: of the scores; None for ``D ** -0.5``.

    Returns:
        ``[1, H, R, D]``.
    """
    assert _kernel is not None
    rows = query[0, :, None].expand(-1, count, -1, -1)
    many, lse = _kernel(rows, _cut(key, count), _cut(value, count), attn_mask=mask, scale=scale)
    out: torch.Tensor = (many * lse.softmax(1)[..., None].to(many.dtype)).sum(1)
    return out[None]


def _cut(part: torch.Tensor, count: int) -> torch.Tensor:
    """``[1, H, K, D] -> [H, count, N, D]``, a view: every piece as long as the last.

    What does not divide into pieces makes the last one longer; the others then run on into the
    beginning of their neighbour, which `piece_mask` hides.
    """
    _, heads, keys, dim = part.shape
    _, by_head, by_key, by_channel = part.stride()
    step, longest = _lengths(keys, count)
    return part.as_strided(
        (heads, count, longest, dim),
        (by_head, step * by_key, by_key, by_channel),
        part.storage_offset(),
    )


def piece_mask(
    count: int, length: int, past: int, groups: int, like: torch.Tensor
) -> torch.Tensor | None:
    """Additive mask ``[1, count, G*Q, N]`` over `split_attention`'s pieces; None for none.

    Hides what pieces share and, in the last, what comes after a query's own token.
    """
    step, longest = _lengths(past + length, count)
    if length == 1 and longest == step:
        return None
    mask = torch.zeros(
        1, count, groups * length, longest, dtype=like.dtype, device=like.device
    )  # fmt: skip
    mask[:, :-1, :, step:] = float("-inf")
    mask[:, -1] = causal_mask(length, longest - length, groups, like)
    return mask


def _lengths(keys: int, count: int) -> tuple[int, int]:
    """Keys from one piece's start to the next one's, and keys of a piece."""
    step = keys // count
    return step, keys - (count - 1) * step


def causal_mask(length: int, past: int, groups: int, like: torch.Tensor) -> torch.Tensor:
    """Additive mask ``[G*Q, past+Q]``: query i of a group sees keys up to ``past + i``."""
    rows = torch.arange(length, device=like.device).repeat(groups)[:, None]
    columns = torch.arange(past + length, device=like.device)[None, :]
    mask = torch.zeros(groups * length, past + length, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(columns > past + rows, float("-inf"))


def static_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    settled: int,
    mask: torch.Tensor,
    scale: float | None,
) -> torch.Tensor:
    """Attention over every slot of a cache, of which a mask says what is filled.

    One call of the stock kernel reads the keys before ``settled``, another the few after it, which
    the mask covers; both are joined by their log-sum-exps.

    Args:
        query: ``[1, H, G * Q, D]``, the query heads of a group as rows.
        key: ``[1, H, K, D]``.
        value: same shape.
        settled: keys that every row sees.
        mask: additive ``[Q, K - settled]``, its rows padded in memory to whole tiles.
        scale: of the scores; None for ``D ** -0.5``.

    Returns:
        ``[1, H, G * Q, D]``.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    last, last_lse = _with_lse(query, key[:, :, settled:], value[:, :, settled:], scale, mask)
    if not settled:
        return last
    count = pieces(key.shape[1], settled, key.device)
    if count > 1:
        # what does not divide into pieces is read a piece more
        whole = settled // count * count
        rows = query[0, :, None].expand(-1, count, -1, -1)
        keys, values = (part[0, :, :whole].unflatten(1, (count, -1)) for part in (key, value))
        many, many_lse = _with_lse(rows, keys, values, scale)
        first = (many.float() * many_lse.softmax(1)[..., None]).sum(1)[None]
        first_lse = many_lse.logsumexp(1)[None]
        if whole < settled:
            keys, values = key[:, :, whole:settled], value[:, :, whole:settled]
            first, first_lse = _join(first, first_lse, *_with_lse(query, keys, values, scale))
    else:
        first, first_lse = _with_lse(query, key[:, :, :settled], value[:, :, :settled], scale)
    return _join(first, first_lse, last, last_lse)[0].to(query.dtype)


def _join(
    one: torch.Tensor, one_lse: torch.Tensor, other: torch.Tensor, other_lse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over two sets of keys from attention over each: weights ``softmax(lse)``."""
    weight = (one_lse - other_lse).sigmoid()[..., None]
    return torch.lerp(other.float(), one.float(), weight), torch.logaddexp(one_lse, other_lse)


def _with_lse(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The stock kernel's output ``[B, H, R, D]`` and log-sum-exps ``[B, H, R]``."""
    aten = torch.ops.aten
    groups = query.shape[2] // mask.shape[0] if mask is not None else 1
    if query.is_cuda and mask is None and query.dtype != torch.float32:
        out, lse, *_ = aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, False, False, scale=scale
        )
    elif query.is_cuda:
        bias = None
        if mask is not None:
            bias = _repeat_rows(mask, groups).expand(1, query.shape[1], -1, -1)
        out, lse, *_ = aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, True, 0.0, False, scale=scale
        )
    else:
        assert _kernel is not None
        rows = mask.repeat(groups, 1) if mask is not None else None
        out, lse = _kernel(query, key, value, attn_mask=rows, scale=scale)
    # kernels round the rows of their log-sum-exps up to whole tiles
    return out, lse[..., : query.shape[2]]


def _repeat_rows(mask: torch.Tensor, groups: int) -> torch.Tensor:
    """``[Q, K]`` as ``[G * Q, K]``, rows padded in memory as they were."""
    if groups == 1:
        return mask
    padded = mask.as_strided((mask.shape[0], mask.stride(0)), mask.stride())
    return padded.repeat(groups, 1)[:, : mask.shape[1]]
