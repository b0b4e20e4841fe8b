"""Passes of fixed shape: the same kernels on the same addresses, whatever has been decoded so far.

That is what a CUDA graph can replay (`mspeckv.accelerate.graphs`), and launching kernels one by one
takes a GPU longer than a pass of a 7B model does. So nothing in such a pass depends on a length
that only the host knows: token ids, positions and slots lie in device buffers, new keys go where
the slots say, and every layer shows all of its slots, with a mask over those that are not filled
yet. Keys before ``settled``, the prompt's, need no mask and take the stock kernel.

The same passes run on a CPU, without a graph; the tests compare them with the ordinary ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mspeckv.accelerate.split_keys import pieces
from mspeckv.context import KV, Masks
from mspeckv.kv.blocks import BlockLayer
from mspeckv.kv.layers import Buffer, FloatLayer, PlacedLayer, Tier, fold_groups
from mspeckv.record import span

Cut = Callable[[Callable[[], None]], None]
"""Called with what the host must do at this point of a pass, each time it is run."""

LONGEST = 64
"""Tokens of the longest static pass; longer ones are rare, and busy enough by themselves."""
_TILE = 16
"""Kernels want rows of a mask to begin at multiples of this."""
_EXACT = 4
"""Passes up to this length have a shape of their own; longer ones share one with others."""


def width_of(tokens: int) -> int:
    """Tokens that a static pass over ``tokens`` reads: beyond four, the next power of two.

    Capturing a pass takes as long as several replays, and chosen lengths try many; and a GPU's
    matrix product hardly tells 9 rows from 16.
    """
    return tokens if tokens <= _EXACT else 1 << (tokens - 1).bit_length()


class StaticInputs:
    """What a pass over ``width`` tokens reads, in buffers that stay where they are.

    Padding is the last token once more, at its own position and slot: it writes there what that
    token writes, so that it needs no room of its own.

    Attributes:
        ids: ``[1, width]`` token ids.
        positions: ``[1, width]``.
        slots: ``[width]`` where new keys go, and what each query sees: slots up to its own.
        tail: ``[width]`` the same in the float tail of packed layers.
        watched: ``[width]`` the same in tier 1's cache, for a pass of tier 2.
        real: ``[width]`` 1 for a token, 0 for padding.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.width = width
        self._on_host = torch.zeros(6, width, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._on_device = torch.zeros(6, width, dtype=torch.int64, device=device)
        self.ids, self.positions = self._on_device[:1], self._on_device[1:2]
        self.slots, self.tail, self.watched, self.real = self._on_device[2:].unbind(0)
        self._sent: torch.cuda.Event | None = None

    def fill(self, tokens: list[int], position: int, slot: int, tail: int, watched: int) -> None:
        """Send the pass's tokens, and where the first of them belongs."""
        if self._sent is not None:
            with span("wait"):
                self._sent.synchronize()
        count, width = len(tokens), self.width
        places = [*range(count), *[count - 1] * (width - count)]
        rows = [[tokens[place] for place in places]]
        rows += [[at + place for place in places] for at in (position, slot, tail, watched)]
        rows.append([1] * count + [0] * (width - count))
        self._on_host.copy_(torch.tensor(rows))
        self._on_device.copy_(self._on_host, non_blocking=True)
        if self._on_device.is_cuda:
            self._sent = torch.cuda.current_stream(self._on_device.device).record_event()


@dataclass(frozen=True)
class Mask:
    """Which slots the queries of a static pass see.

    Attributes:
        settled: slots before this one are seen by all.
        rest: additive ``[width, slots - settled]`` over the others, padded to whole tiles of 16.
    """

    settled: int
    rest: torch.Tensor

    @classmethod
    def of(cls, inputs: StaticInputs, settled: int, slots: int, dtype: torch.dtype) -> Mask:
        """Every query sees the slots up to its own."""
        device, count = inputs.slots.device, slots - settled
        rest = torch.arange(settled, settled + -(-count // _TILE) * _TILE, device=device)
        unseen = rest[None] > inputs.slots[:, None]
        mask = torch.zeros(unseen.shape, device=device, dtype=dtype)
        return cls(settled, mask.masked_fill_(unseen, float("-inf"))[:, :count])


@dataclass(frozen=True)
class Slots:
    """Every slot of a layer ``[1, H, S, D]``, filled or not.

    Attributes:
        key: keys by slot.
        value: values by slot.
        new: slots ``[width]`` of the pass's own tokens.
        mask: which slots each query sees.
    """

    key: torch.Tensor
    value: torch.Tensor
    new: torch.Tensor
    mask: Mask

    @property
    def tokens(self) -> int:
        """Slots: how many are filled only the device knows."""
        return self.key.shape[2]

    def newest(self, count: int) -> KV:
        """The pass's own tokens, padding included."""
        return self.key.index_select(2, self.new), self.value.index_select(2, self.new)

    def whole(self) -> KV:
        """Every slot."""
        return self.key, self.value

    def release(self) -> None:
        """Nothing to give back."""


class SlottedLayer(PlacedLayer):
    """One layer of a cache, as a static pass sees it.

    Args:
        base: the cache's own layer.
        inputs: where new tokens go.
        cut: called with the host's work, where there is any.
        mask: which slots are seen.
    """

    def __init__(self, base: PlacedLayer, inputs: StaticInputs, cut: Cut, mask: Mask) -> None:
        super().__init__()
        self.base, self.inputs, self.cut, self.mask = base, inputs, cut, mask
        self.length = filled(base)

    def append(self, key: torch.Tensor, value: torch.Tensor) -> Slots:
        """Put the new tokens where the slots say; shows every slot."""
        base, inputs = under(self.base), self.inputs
        if brings(base):
            # what is on the host, or packed, when the pass is run
            self.cut(lambda: self.base.bring(filled(self.base)))
        view = view_of(base)
        view.write_at(inputs.slots, key, value)
        if brings(base):
            base.tail.write_at(inputs.tail, key, value)
        return Slots(*view.whole, inputs.slots, self.mask)


def slotted(cache: Tier, inputs: StaticInputs, cut: Cut, mask: Mask) -> Tier:
    """A cache as a static pass sees it; lengths are the caller's business."""
    return Tier(layers=[SlottedLayer(layer, inputs, cut, mask) for layer in cache.layers])


def under(layer: Any) -> Any:
    """The layer itself, or the one that it is another look at."""
    return getattr(layer, "base", layer)


def filled(layer: Any) -> int:
    """Slots of a layer that hold a token."""
    return max(int(layer.length), int(under(layer).length))


def brings(layer: PlacedLayer) -> bool:
    """Whether a layer must be unpacked into the scratch buffer first."""
    return isinstance(layer, BlockLayer)


def view_of(layer: PlacedLayer) -> Buffer:
    """Where every token of a layer can be found, by slot, once brought."""
    if isinstance(layer, FloatLayer):
        return layer.buffer
    assert isinstance(layer, BlockLayer)
    return layer.store.scratch


def tail_start(cache: Tier) -> int:
    """Slot at which the float tails of packed layers begin."""
    layers = [under(layer) for layer in cache.layers]
    return max((layer.packed_tokens for layer in layers if brings(layer)), default=0)


def can_be_static(cache: Tier) -> bool:
    """Whether every layer is of a kind whose slots are known here."""
    return all(isinstance(under(layer), FloatLayer | BlockLayer) for layer in cache.layers)


def attend_slots(
    query: torch.Tensor, shown: Slots, scale: float | None, masks: Masks
) -> torch.Tensor:
    """Attention over every slot of a cache; see `mspeckv.context.Kernel`."""
    folded = fold_groups(query, shown.key.shape[1])
    out = static_attention(folded, shown.key, shown.value, shown.mask, scale)
    return out.reshape(*query.shape[:3], out.shape[-1])


def static_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Mask,
    scale: float | None,
) -> torch.Tensor:
    """Attention over every slot of a cache, of which a mask says what is filled.

    One call of the stock kernel reads the keys before ``settled``, another the few after it, which
    the mask covers; both are joined by their log-sum-exps.

    Args:
        query: ``[1, H, G * Q, D]``, the query heads of a group as rows.
        key: ``[1, H, K, D]``.
        value: same shape.
        mask: which keys each row sees.
        scale: of the scores; None for ``D ** -0.5``.

    Returns:
        ``[1, H, G * Q, D]``.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    settled, rest = mask.settled, mask.rest
    last, last_lse = _with_lse(query, key[:, :, settled:], value[:, :, settled:], scale, rest)
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
        rows = mask.repeat(groups, 1) if mask is not None else None
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=rows, scale=scale
        )
    # kernels round the rows of their log-sum-exps up to whole tiles
    return out, lse[..., : query.shape[2]]


def _repeat_rows(mask: torch.Tensor, groups: int) -> torch.Tensor:
    """``[Q, K]`` as ``[G * Q, K]``, rows padded in memory as they were."""
    if groups == 1:
        return mask
    padded = mask.as_strided((mask.shape[0], mask.stride(0)), mask.stride())
    return padded.repeat(groups, 1)[:, : mask.shape[1]]
