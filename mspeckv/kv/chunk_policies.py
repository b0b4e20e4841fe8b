"""Retrieval policies: by what tier 1 chooses the chunks of the prompt that it sees.

A policy scores the chunks of one layer, from what tier 2 has just asked and from what stands for
each chunk. Those with the highest scores are kept; chunk 0 and the recent window always are. Under
a name of its own it is a setting like any other:

    @mspeckv.retrieval.register("peak")
    def peak(queries, landmarks, weights):
        scores = queries @ landmarks.transpose(1, 2)
        return scores.masked_fill(weights[:, None] == 0, -1e9).amax(1)

    mspeckv.generate(pair, prompt, speculation=Speculation(retrieval="peak"))

One that is registered with ``reads_keys=True`` is given the keys themselves, ``[H, chunks, C, D]``,
in place of landmarks; with ``Speculation(chunk=1)`` it chooses single tokens.

A policy decides what tier 1 guesses, never how the text is distributed: tier 2 verifies each token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mspeckv.kv.door import Door
from mspeckv.settings import refuse

Policy = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Called for one layer as ``policy(queries, landmarks, weights)``; returns scores ``[H, chunks]``.

``queries`` ``[H, R, D]``: tier 2's recent queries; the heads that share a KV head are rows.
``landmarks`` ``[H, chunks, D]``: the mean key of each chunk, in the prompt's order.
``weights`` ``[R]``: 1 for a query that counts, 0 for padding. On a GPU passes are padded to fixed
shapes and recorded, so a policy that looks at a value on the host keeps its pass from being
replayed: that pass is then run as it comes.
"""

_policies: Door[Policy] = Door("retrieval")
_keys_readers: set[str] = set()


@_policies.register("attention")
def attention(
    queries: torch.Tensor, landmarks: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Attention that the landmarks would get, added up over queries and heads of a group.

    Scores after TriForce, arXiv 2404.11912, section 4.1, with softmax per query, so that no query
    counts for more than another.
    """
    scores = queries * queries.shape[-1] ** -0.5 @ landmarks.transpose(1, 2)
    shares = scores.softmax(-1, dtype=torch.float32)
    return weights.matmul(shares)


@_policies.register("newest")
def newest(queries: torch.Tensor, landmarks: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The newest chunks, whatever is asked: a control that shows what asking is worth."""
    heads, chunks, _ = landmarks.shape
    return torch.arange(chunks, device=landmarks.device).float().expand(heads, chunks)


names = _policies.names
"""The default first."""
policy = _policies.find
_BUILT_IN = frozenset(names())


def reads_keys(name: str) -> bool:
    """Whether a policy is given keys in place of landmarks."""
    return name in _keys_readers


def register(name: str, *, reads_keys: bool = False) -> Callable[[Policy], Policy]:
    """A decorator that makes a function the policy ``name``; a later one takes its place.

    The function is tried on small random tensors first.

    Args:
        name: an identifier.
        reads_keys: give it keys ``[H, chunks, C, D]`` in place of landmarks. A pass that chooses
            then reads every key of the prompt once more; no landmark is kept.

    Raises:
        ValueError: the name is no identifier or belongs to a policy of the engine; or the
            function's scores are not floating-point, finite and of the shape ``[H, chunks]``, or
            depend on padding.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise refuse("retrieval", name, "use letters, digits and _ for a policy's name")
    if name in _BUILT_IN:
        raise refuse("retrieval", name, "the engine's own policies stay: use another name")

    def add(function: Policy) -> Policy:
        _try(name, function, (2, 5, 3, 8) if reads_keys else (2, 5, 8))
        (_keys_readers.add if reads_keys else _keys_readers.discard)(name)
        return _policies.register(name)(function)

    return add


def unregister(name: str) -> None:
    """Forget a policy; runs that use it already are not affected.

    Raises:
        ValueError: it is not there, or the engine's own.
    """
    if name in _BUILT_IN:
        raise refuse("retrieval", name, "the engine's own policies stay")
    _policies.unregister(name)
    _keys_readers.discard(name)


def _try(name: str, function: Policy, read: tuple[int, ...]) -> None:
    """Refuse a policy whose scores cannot be used, before any run depends on it.

    ``read`` is the shape of what it reads beside queries.
    """
    generator = torch.Generator().manual_seed(0)
    queries, landmarks = (
        torch.randn(shape, generator=generator, dtype=torch.float32) for shape in ((2, 6, 8), read)
    )
    weights = torch.tensor([1, 1, 1, 1, 0, 0], dtype=torch.float32)
    scores = function(queries.clone(), landmarks.clone(), weights.clone())
    if not isinstance(scores, torch.Tensor) or scores.shape != (2, 5):
        shape = list(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise refuse("retrieval", name, f"return scores [H, chunks], here [2, 5], not {shape}")
    if not scores.is_floating_point() or not bool(scores.isfinite().all()):
        raise refuse("retrieval", name, "return finite floating-point scores")
    queries[:, 4:] = 100 * torch.randn(2, 2, 8, generator=generator, dtype=torch.float32)
    again = function(queries, landmarks.clone(), weights.clone())
    if not torch.equal(scores.argsort(-1), again.argsort(-1)):
        raise refuse("retrieval", name, "leave out queries of weight 0: they are padding")
