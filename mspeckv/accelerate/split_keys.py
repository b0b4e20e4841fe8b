"""Long keys cut into pieces, so that few KV heads keep every core busy.

Saves 17 % of a plain step over 2 k of float keys and 34 % over 8 k on 16 cores; 2 % over 4 k on
two, where there is little to share out (benchmarks/results/accelerations-16-cores.txt, -2-cores).

torch's CPU kernel gives one task to each batch row and head: a pass over 3 KV heads leaves one of
two cores idle a third of the time, and 13 of 16 cores all the time. Cutting the keys makes more
tasks, and the pieces are joined exactly by their log-sum-exps (Flash-Decoding: Dao et al., 2023;
the identity is section 3.1 of FlashAttention, arXiv 2205.14135):

    out = sum_i w_i out_i,   w = softmax_i(lse_i)
"""

from __future__ import annotations

from dataclasses import replace

import torch

from mspeckv.context import Masks
from mspeckv.decoding.attention import attend_floats
from mspeckv.decoding.hooks import Hooks
from mspeckv.kv.floats import Floats
from mspeckv.kv.layers import fold_groups
from mspeckv.kv.scores import causal_mask

LEAST_KEYS = 1024
"""Shorter keys are not worth a second kernel call."""
PIECE = 256
"""Fewest keys of a piece, and most queries for which keys are cut."""
_TASKS_PER_THREAD = 2

_kernel = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def plug(hooks: Hooks, device: torch.device) -> Hooks:
    """Cut keys on a CPU: torch's kernels for CUDA split long keys by themselves."""
    if device.type != "cpu" or _kernel is None:
        return hooks
    return replace(hooks, kernels={**hooks.kernels, Floats: attend_split})


def attend_split(
    query: torch.Tensor, shown: Floats, scale: float | None, masks: Masks
) -> torch.Tensor:
    """`attend_floats`, a few queries' long keys in pieces; see `mspeckv.context.Kernel`."""
    batch, heads, length, dim = query.shape
    kv_heads, past = shown.key.shape[1], shown.tokens - length
    few = batch == 1 and length <= PIECE and shown.value.shape[-1] == dim
    count = pieces(kv_heads, past) if few else 1
    if count == 1:
        return attend_floats(query, shown, scale, masks)
    groups = heads // kv_heads
    key = length, past, groups, count
    if key not in masks:
        masks[key] = piece_mask(count, length, past, groups, query)
    assert _kernel is not None
    rows = fold_groups(query, kv_heads)[0, :, None].expand(-1, count, -1, -1)
    keys, values = (_cut(part, count) for part in shown.whole())
    many, lse = _kernel(rows, keys, values, attn_mask=masks[key], scale=scale)
    out: torch.Tensor = (many * lse.softmax(1)[..., None].to(many.dtype)).sum(1)
    return out.reshape(query.shape)


def pieces(heads: int, past: int) -> int:
    """How many pieces to cut ``past`` keys of ``heads`` KV heads into; 1 for not at all."""
    if past < LEAST_KEYS:
        return 1
    return max(1, min(even_pieces(heads, torch.get_num_threads()), past // PIECE))


def even_pieces(heads: int, threads: int) -> int:
    """Pieces of each of ``heads`` KV heads that keep ``threads`` busy to the end."""
    wanted = -(-_TASKS_PER_THREAD * threads // heads)
    # tasks are dealt out evenly, so a number that threads divide leaves none of them waiting
    return next(n for n in range(wanted, wanted + threads) if heads * n % threads == 0)


def _cut(part: torch.Tensor, count: int) -> torch.Tensor:
    """``[1, H, K, D] -> [H, count, N, D]``, a view: every piece as long as the last.

    What does not divide into pieces makes the last one longer; the others then run on into the
    beginning of their neighbour, which `piece_mask` hides.
    """
    _, heads, keys, dim = part.shape
    _, by_head, by_key, by_channel = part.stride()
    step, rest = divmod(keys, count)
    return part.as_strided(
        (heads, count, step + rest, dim),
        (by_head, step * by_key, by_key, by_channel),
        part.storage_offset(),
    )


def piece_mask(
    count: int, length: int, past: int, groups: int, like: torch.Tensor
) -> torch.Tensor | None:
    """Additive mask ``[1, count, G*Q, N]`` over `attend_split`'s pieces; None for none.

    Hides what pieces share and, in the last, what comes after a query's own token.
    """
    step, rest = divmod(past + length, count)
    if length == 1 and rest == 0:
        return None
    mask = like.new_zeros(1, count, groups * length, step + rest)
    mask[:, :-1, :, step:] = float("-inf")
    mask[:, -1] = causal_mask(length, step + rest - length, groups, like)
    return mask
