"""Where a layer's keys and values lie: on-chip, resident or offloaded.

A placement is a function that makes a layer; `register` gives it the name by which a policy asks
for it (`KVPolicy.placement`), so a new one is a class of layers and a line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mspeckv.context import KV
from mspeckv.events import Purpose
from mspeckv.kv.blocks import BlockLayer, Store
from mspeckv.kv.layers import Buffer, FloatLayer, PlacedLayer
from mspeckv.kv.pipeline import Pipeline
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import tail_tokens
from mspeckv.settings import KVPolicy, refuse


@dataclass(frozen=True)
class Room:
    """What a placement makes its layers of.

    Attributes:
        shape: the target's KV shape.
        capacity: most tokens of the run, guesses included.
        device: where compute runs.
        store: what packed layers share.
        pipeline: brings offloaded layers over the link.
    """

    shape: KVShape
    capacity: int
    device: torch.device
    store: Store
    pipeline: Pipeline

    def buffer(self, tokens: int) -> Buffer:
        """Floats of ``tokens`` tokens on the device."""
        return Buffer(self.shape.heads, tokens, self.shape.dim, self.shape.dtype, self.device)

    def tail(self) -> Buffer:
        """A packed layer's float tail."""
        return self.buffer(tail_tokens(self.store.policy))


Place = Callable[[Room, int], PlacedLayer]
"""Makes the layer of an index."""

_places: dict[str, Place] = {}


def register(name: str) -> Callable[[Place], Place]:
    """A decorator that makes a function the placement ``name``."""

    def add(place: Place) -> Place:
        _places[name] = place
        return place

    return add


def place(name: str) -> Place:
    """The placement of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in _places:
        raise refuse("placement", name, f"use one of {', '.join(_places)}, or register it first")
    return _places[name]


def name_of(policy: KVPolicy, kind: str) -> str:
    """The placement that stands for ``kind`` under a policy."""
    if policy.nibble and kind == "offloaded":
        return "nibble"
    return kind


@register("on-chip")
def _on_chip(room: Room, index: int) -> PlacedLayer:
    return FloatLayer(room.buffer(room.capacity))


class ResidentLayer(BlockLayer):
    """Packed blocks in device memory, unpacked in every pass: nothing crosses the link."""

    def __init__(self, store: Store, tail: Buffer, index: int) -> None:
        super().__init__(store, tail, index)
        self.records = torch.empty(
            store.blocks, store.codec.record_bytes, dtype=torch.uint8, device=tail.key.device
        )

    @property
    def contents(self) -> list[torch.Tensor]:
        """Tail and records."""
        return [*super().contents, self.records[: self.blocks]]

    def keep(self, records: torch.Tensor, purpose: Purpose) -> None:
        """Store new records after those held."""
        self.records[self.blocks : self.blocks + len(records)] = records

    def unpack(self, out: KV) -> None:
        """Decode all finished blocks into ``out``."""
        self.codec.decode(self.records[: self.blocks], *out)

    def arrived(self) -> torch.Tensor:
        """All finished blocks."""
        return self.records[: self.blocks]

    def bytes_by_place(self) -> dict[str, int]:
        """Records on the device, and the tail."""
        return {"resident": self.records.numel(), "tail": self.tail.bytes}


@register("resident")
def _resident(room: Room, index: int) -> PlacedLayer:
    return ResidentLayer(room.store, room.tail(), index)


class OffloadedLayer(BlockLayer):
    """Packed blocks in host memory, fetched through one of the pipeline's slots for each pass."""

    def __init__(self, store: Store, tail: Buffer, index: int, pipeline: Pipeline) -> None:
        super().__init__(store, tail, index)
        self.pipeline, self.order = pipeline, len(pipeline.layers)
        # pinned, a GPU's copy engine reads host memory without the processor's help
        pin = tail.key.device.type == "cuda"
        size = store.blocks, pipeline.record_bytes
        self.records = torch.empty(size, dtype=torch.uint8, pin_memory=pin)
        pipeline.layers.append(self)

    @property
    def found(self) -> bool:
        """The pipeline counts its own."""
        return False

    @property
    def contents(self) -> list[torch.Tensor]:
        """Tail and records."""
        return [*super().contents, self.records[: self.blocks]]

    def keep(self, records: torch.Tensor, purpose: Purpose) -> None:
        """Send new records to the host; each byte crosses once."""
        place = slice(self.blocks, self.blocks + len(records))
        self.pipeline.send(records, self.records[place], purpose, self.index)
        held = self.pipeline.held.get(self.order)
        if held is not None:
            held[place] = records

    def arrived(self) -> torch.Tensor | None:
        """Wait for this layer's records."""
        return self.pipeline.take(self)[: self.blocks]

    def release(self) -> None:
        """Let the next fetch start."""
        self.pipeline.release(self)

    def unpack(self, out: KV) -> None:
        """Wait for this layer's records, decode them, and let the next fetch start."""
        slot = self.pipeline.take(self)
        self.codec.decode(slot[: self.blocks], *out)
        self.release()

    def bytes_by_place(self) -> dict[str, int]:
        """Records on the host, and the tail."""
        return {"offloaded": self.records.numel(), "tail": self.tail.bytes}


@register("offloaded")
def _offloaded(room: Room, index: int) -> PlacedLayer:
    return OffloadedLayer(room.store, room.tail(), index, room.pipeline)
