"""Passes of fixed shape: the same kernels on the same addresses, whatever has been decoded so far.

That is what a CUDA graph can replay (`mspeckv.graphs`), and launching kernels one by one takes a
GPU longer than a pass of a 7B model does. So nothing in such a pass depends on a length that only
the host knows: token ids, positions and slots lie in device buffers, new keys go where the slots
say, and every layer's keys are seen whole, with a mask over those slots that are not filled yet.
Keys before ``settled``, the prompt's, need no mask and take the stock kernel.

The same passes run on a CPU, without a graph; the tests compare them with the ordinary ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache

from mspeckv.kv.layers import KV, PlacedLayer
from mspeckv.ranges import span

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
class StaticKeys:
    """Which slots the queries of a static pass see.

    Attributes:
        settled: slots before this one are seen by all.
        mask: additive ``[width, slots - settled]`` over the others, padded to whole tiles of 16.
    """

    settled: int
    mask: torch.Tensor

    @classmethod
    def of(cls, inputs: StaticInputs, settled: int, slots: int, dtype: torch.dtype) -> StaticKeys:
        """Every query sees the slots up to its own."""
        device, count = inputs.slots.device, slots - settled
        rest = torch.arange(settled, settled + -(-count // _TILE) * _TILE, device=device)
        unseen = rest[None] > inputs.slots[:, None]
        mask = torch.zeros(unseen.shape, device=device, dtype=dtype)
        return cls(settled, mask.masked_fill_(unseen, float("-inf"))[:, :count])


class StaticLayer(PlacedLayer):
    """One layer of a cache, as a static pass sees it."""

    def __init__(self, base: PlacedLayer, inputs: StaticInputs, cut: Cut) -> None:
        super().__init__()
        self.base, self.inputs, self.cut = base, inputs, cut
        self.length = base.filled

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> KV:
        """Put the new tokens where the slots say; returns every slot."""
        base = self.base
        if base.brings:
            self.cut(lambda: base.bring(base.filled))
        base.write_at(self.inputs.slots, self.inputs.tail, key_states, value_states)
        return base.view.whole


class StaticCache(Cache):  # type: ignore[misc]  # transformers is not typed here
    """A cache as a static pass sees it; lengths are the caller's business."""

    def __init__(self, cache: Cache, inputs: StaticInputs, cut: Cut) -> None:
        super().__init__(layers=[StaticLayer(layer, inputs, cut) for layer in cache.layers])
