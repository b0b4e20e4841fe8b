"""A chunk policy: tier 1 keeps what tier 2's last verification attended to most.

A verification reads every key anyway. Its queries are the newest that there are, several of them,
and of the target itself; what they attend to, the next few will too (Vegas, arXiv 2602.07223;
PillarAttn of SparseSpec, arXiv 2512.01278, section 4.1). So no pass is added, and no mean of a
chunk stands in for its tokens:

    Speculation(retrieval="attended", chunk=1, refresh=1)

chooses single tokens, per KV head, anew after every verification.
"""

from __future__ import annotations

import torch

from mspeckv.kv.chunk_policies import register


@register("attended", reads_keys=True)
def attended(queries: torch.Tensor, keys: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Attention that each chunk's tokens get from the queries; see `mspeckv.retrieval`.

    Args:
        queries: ``[H, R, D]``.
        keys: ``[H, chunks, C, D]``.
        weights: ``[R]``, 0 for padding.

    Returns:
        ``[H, chunks]``: shares of the chunks' tokens, summed over queries.
    """
    scores = queries * queries.shape[-1] ** -0.5 @ keys.flatten(1, 2).transpose(1, 2)
    shares = scores.softmax(-1, dtype=torch.float32)
    mass: torch.Tensor = (weights @ shares).unflatten(-1, keys.shape[1:3])
    return mass.sum(-1)
