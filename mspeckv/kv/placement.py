"""Where a layer's keys and values lie: on-chip, resident or offloaded.

A placement makes the layer of an index; the door `placements` gives it the name by which a policy
asks for it. Layers that are neither on-chip nor resident go where `KVPolicy.elsewhere` says.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mspeckv.events import Purpose
from mspeckv.kv.blocks import Arrived, BlockLayer, Room
from mspeckv.kv.door import Door
from mspeckv.kv.floats import Buffer, FloatLayer
from mspeckv.kv.layers import PlacedLayer
from mspeckv.kv.offloaded import OffloadedLayer
from mspeckv.settings import KVPolicy, Placement

Place = Callable[[Room, int], PlacedLayer]
"""Makes the layer of an index."""
placements: Door[Place] = Door("placement")


def place_of(policy: KVPolicy, kind: Placement) -> Place:
    """What makes the layers of a kind under a policy.

    Raises:
        ValueError: the policy names a placement that there is not.
    """
    if kind != "offloaded":
        return placements.find(kind)
    return placements.find("nibble" if policy.nibble else policy.elsewhere)


@placements.register("on-chip")
def on_chip(room: Room, index: int) -> FloatLayer:
    """Unquantized KV in device memory."""
    return FloatLayer(Buffer(room.shape, room.capacity, room.device))


@placements.register("resident")
class ResidentLayer(BlockLayer):
    """Packed blocks in device memory, unpacked in every pass: nothing crosses the link."""

    def __init__(self, room: Room, index: int) -> None:
        super().__init__(room, index)
        size = room.blocks, room.codec.record_bytes
        self.records = torch.empty(size, dtype=torch.uint8, device=room.device)

    def keep(self, records: torch.Tensor, purpose: Purpose) -> None:
        """Store new records after those held."""
        self.records[self.blocks : self.blocks + len(records)] = records

    def arrived(self) -> Arrived:
        """All finished blocks."""
        return Arrived(self.records[: self.blocks], self.codec)

    def bytes_by_place(self) -> dict[str, int]:
        """Records on the device, and the tail."""
        return {"resident": self.records.numel(), "tail": self.tail.bytes}


placements.register("offloaded")(OffloadedLayer)
