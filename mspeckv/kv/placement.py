"""Where a layer's keys and values lie: on-chip, resident or offloaded.

A placement makes the layer of an index; the door `placements` gives it the name by which a policy
asks for it. Layers that are neither on-chip nor resident go where `KVPolicy.elsewhere` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mspeckv.events import Purpose
from mspeckv.kv.blocks import Arrived, BlockLayer, Store
from mspeckv.kv.door import Door
from mspeckv.kv.floats import Buffer, FloatLayer
from mspeckv.kv.layers import PlacedLayer
from mspeckv.kv.offloaded import OffloadedLayer, Pipeline
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import tail_tokens
from mspeckv.settings import KVPolicy, Placement


@dataclass(frozen=True)
class Room:
    """What a placement makes its layers of.

    Attributes:
        capacity: most tokens of the run, guesses included.
    """

    shape: KVShape
    capacity: int
    device: torch.device
    store: Store
    pipeline: Pipeline

    def buffer(self, tokens: int) -> Buffer:
        """Floats of ``tokens`` tokens on the device."""
        return Buffer(self.shape, tokens, self.device)

    def tail(self) -> Buffer:
        """A packed layer's float tail."""
        return self.buffer(tail_tokens(self.store.policy))


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


class ResidentLayer(BlockLayer):
    """Packed blocks in device memory, unpacked in every pass: nothing crosses the link."""

    def __init__(self, store: Store, tail: Buffer, index: int) -> None:
        super().__init__(store, tail, index)
        self.records = torch.empty(
            store.blocks, store.codec.record_bytes, dtype=torch.uint8, device=tail.key.device
        )

    def keep(self, records: torch.Tensor, purpose: Purpose) -> None:
        """Store new records after those held."""
        self.records[self.blocks : self.blocks + len(records)] = records

    def arrived(self) -> Arrived:
        """All finished blocks."""
        return Arrived(self.records[: self.blocks], self.codec)

    def bytes_by_place(self) -> dict[str, int]:
        """Records on the device, and the tail."""
        return {"resident": self.records.numel(), "tail": self.tail.bytes}


placements.register("on-chip")(lambda room, index: FloatLayer(room.buffer(room.capacity)))
placements.register("resident")(lambda room, index: ResidentLayer(room.store, room.tail(), index))
placements.register("offloaded")(
    lambda room, index: OffloadedLayer(room.store, room.tail(), index, room.pipeline)
)
