"""Offloaded layers: packed blocks in host memory, and the pipeline that brings them in time.

A block's way: `OffloadedLayer.keep` sends it to the host once. `Pipeline.begin`, before a pass,
lets the first layers cross the link into slots on the device, and each that is done with a slot
lets the next one begin. `OffloadedLayer.arrived` waits for its own.
"""

from __future__ import annotations

from collections import OrderedDict

import torch

from mspeckv.events import Purpose
from mspeckv.kv.blocks import Arrived, BlockLayer, Room
from mspeckv.kv.link import KVLink, Ticket
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import streamed_bytes
from mspeckv.record import span
from mspeckv.settings import KVPolicy


class Pipeline:
    """Double buffering: while one offloaded layer is computed, the next one crosses the link.

    Layers are looked up in the order of the pass, at most ``ahead`` of them at once; the
    first lookups happen in `begin`, before the round's drafting. A miss fetches into a free slot.
    With ``cached`` > 0 the slots of the layers looked up last stay valid (LRU), and a lookup that
    finds its layer moves nothing. A decoder visits its layers in a cycle, so a cache smaller than
    the cycle has always just dropped the layer that comes next: it hits nothing until all fit.

    Args:
        blocks: most blocks of a layer.

    Attributes:
        record_bytes: bytes per block that cross the link.
    """

    def __init__(
        self, link: KVLink, shape: KVShape, policy: KVPolicy, blocks: int, device: torch.device
    ) -> None:
        self.link, self.record_bytes = link, streamed_bytes(shape, policy)
        self.ahead, self.cached = policy.ahead, policy.cached_layers
        offloaded = policy.placement(shape.layers).count("offloaded")
        self.layers: list[OffloadedLayer] = []
        self.held: OrderedDict[int, torch.Tensor] = OrderedDict()
        self.hits = self.misses = 0
        self._free = [
            torch.empty(blocks, self.record_bytes, dtype=torch.uint8, device=device)
            for _ in range(min(self.ahead + self.cached, offloaded))
        ]
        self.bytes = sum(slot.numel() for slot in self._free)
        self._ready: dict[int, tuple[torch.Tensor, Ticket | None]] = {}
        self._next = 0
        self._leaving: Ticket | None = None

    def restart(self) -> None:
        """Hold nothing."""
        self._abandon()
        self._free += self.held.values()
        self.held.clear()
        self._leaving = None
        self.hits = self.misses = 0

    def begin(self) -> None:
        """Look up the first layers of the next pass."""
        self._abandon()
        for _ in range(self.ahead):
            self._look_up_next()

    def send(self, records: torch.Tensor, home: torch.Tensor, purpose: Purpose, layer: int) -> None:
        """Copy new records to the host; a prompt's layers leave one at a time.

        So no more than two layers of a prompt are staged on the device: one on its way, one
        being packed.
        """
        if purpose == "prefill" and self._leaving is not None:
            self.link.wait(self._leaving)
        self._leaving = self.link.copy(records, home, "to_host", purpose, layer)

    def take(self, layer: OffloadedLayer) -> torch.Tensor:
        """The slot holding ``layer``'s records, once they have arrived."""
        if layer.order not in self._ready:
            self.begin()
        slot, ticket = self._ready[layer.order]
        if ticket is not None:
            with span("kv/fetch"):
                self.link.wait(ticket)
        return slot

    def release(self, layer: OffloadedLayer) -> None:
        """``layer`` has been decoded: look up the next one."""
        self._let_go(layer.order)
        self._look_up_next()

    def _abandon(self) -> None:
        """A pass ended before it reached some layers: let their copies finish."""
        for order, (_, ticket) in list(self._ready.items()):
            if ticket is not None:
                self.link.wait(ticket)
            self._let_go(order)
        self._next = 0

    def _let_go(self, order: int) -> None:
        """A looked-up layer's slot is free, unless the cache holds on to it."""
        slot, _ = self._ready.pop(order)
        if self.held.get(order) is not slot:
            self._free.append(slot)

    def _look_up_next(self) -> None:
        if self._next >= len(self.layers):
            return
        order, layer = self._next, self.layers[self._next]
        self._next += 1
        held = self.held.get(order)
        if held is not None:
            self.held.move_to_end(order)
            self._ready[order] = held, None
            self.hits += bool(layer.blocks)
            return
        slot = self._free.pop()
        self.misses += bool(layer.blocks)
        source, target = layer.records[: layer.blocks], slot[: layer.blocks]
        ticket = self.link.copy(source, target, "to_device", "verify", layer.index)
        self._ready[order] = slot, ticket
        if self.cached:
            self.held[order] = slot
        if len(self.held) > self.cached:
            # the one looked up longest ago; if still waited for, its own `release` frees it
            dropped, freed = self.held.popitem(last=False)
            if dropped not in self._ready:
                self._free.append(freed)


class OffloadedLayer(BlockLayer):
    """Packed blocks in host memory, fetched through one of the pipeline's slots for each pass."""

    def __init__(self, room: Room, index: int) -> None:
        super().__init__(room, index)
        self.pipeline: Pipeline = room.pipeline
        self.order = len(self.pipeline.layers)
        # pinned, a GPU's copy engine reads host memory without the processor's help
        pin = room.device.type == "cuda"
        size = room.blocks, self.pipeline.record_bytes
        self.records = torch.empty(size, dtype=torch.uint8, pin_memory=pin)
        self.pipeline.layers.append(self)

    def keep(self, records: torch.Tensor, purpose: Purpose) -> None:
        """Send new records to the host; each byte crosses once."""
        place = slice(self.blocks, self.blocks + len(records))
        self.pipeline.send(records, self.records[place], purpose, self.index)
        held = self.pipeline.held.get(self.order)
        if held is not None:
            held[place] = records

    def arrived(self) -> Arrived:
        """Wait for this layer's records."""
        return Arrived(self.pipeline.take(self)[: self.blocks], self.codec)

    def release(self) -> None:
        """Let the next fetch start."""
        self.pipeline.release(self)

    def bytes_by_place(self) -> dict[str, int]:
        """Records on the host, and the tail."""
        return {"offloaded": self.records.numel(), "tail": self.tail.bytes}
