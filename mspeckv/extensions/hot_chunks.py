"""A tier-1 cache whose chunks live in host memory, the ones used last on the device as well.

Retrieval gathers its chunks from what a verification has just brought to the device. Where tier 2
reads packed blocks as they are, nothing is brought; and a device may have no room for the prompt's
floats. Here they stay on the host. A buffer on the device holds, for each layer and KV head, the
chunks that were chosen last; a chunk that is chosen and not in it crosses the link, with a purpose
of its own, ``"recall"``, and takes the place of the one chosen longest ago (least recently used).

A least recently used buffer finds nothing where layers are visited in a cycle
(`mspeckv.kv.offloaded`): each is dropped just before it comes again. Choices of chunks are no
cycle. Neighbouring tokens ask for nearly the same chunks, so most are found (as in ShadowKV, arXiv
2410.21465, section 4). Tier 1's passes note how many were found, and how many had to cross.

    Speculation(tier1="hot chunks", budget=256, refresh=1)
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain

import torch

from mspeckv.context import KV
from mspeckv.events import Direction
from mspeckv.kv.full import FullCache
from mspeckv.kv.retrieval import RetrievalCache, chunks_of
from mspeckv.kv.sizes import ChunkPlan
from mspeckv.kv.tier1 import Tier1Room, tier1_caches

RECALL = "recall"


@tier1_caches.register("hot chunks")
class HotChunkCache(RetrievalCache):
    """Retrieval whose chunks come from the host through a buffer on the device.

    Attributes:
        home: on the host ``[N, H, chunks, 2 * C * D]``, a chunk's keys and values side by side.
        buffer: the same on the device, ``[N, H, slots, 2 * C * D]``.
        order: of the layers that grow, by index.
        places: by layer and head, the slot of each chunk in the buffer, the last chosen last.
    """

    asks_host = True
    room_for_each = 2
    """Chunks in the buffer for each one that a layer's head may choose."""

    def __init__(self, room: Tier1Room, full: FullCache, device: torch.device) -> None:
        super().__init__(room, full, device)
        self.full = full
        plan, shape = self.plan, room.shape
        self.slots = self.slots_of(plan)
        self._pin = device.type == "cuda"
        heads, row = (shape.layers, shape.heads), 2 * plan.chunk * shape.dim
        self.home = torch.empty(*heads, plan.chunks, row, dtype=shape.dtype, pin_memory=self._pin)
        self.buffer = torch.empty(*heads, self.slots, row, dtype=shape.dtype, device=device)
        self.places = [
            [OrderedDict[int, int]() for _ in range(shape.heads)] for _ in range(shape.layers)
        ]
        self.order = {layer: order for order, layer in enumerate(self.chosen)}
        self._found = self._missed = 0

    @classmethod
    def slots_of(cls, plan: ChunkPlan) -> int:
        """Chunks that the buffer holds of each layer and head."""
        return min(plan.chunks, cls.room_for_each * plan.chosen)

    @classmethod
    def sizes(cls, room: Tier1Room) -> tuple[int, int]:
        """Retrieval's and the buffer on the device, every chunk on the host."""
        plan = ChunkPlan.of(room.speculation, room.prompt)
        chunk = room.shape.layers * plan.chunk * room.shape.token_bytes
        own, _ = super().sizes(room)
        return own + cls.slots_of(plan) * chunk, plan.chunks * chunk

    @property
    def bytes(self) -> int:
        """Bytes allocated on the device."""
        return super().bytes + self.buffer.nbytes

    def lookups(self) -> tuple[int, int]:
        """Chosen chunks found on the device, and recalled, since the last call."""
        counts = self._found, self._missed
        self._found = self._missed = 0
        return counts

    def restart(self) -> None:
        """As before the first pass."""
        super().restart()
        self.lookups()
        for held in chain(*self.places):
            held.clear()

    def gather(self, layer: int, source: KV, out: KV) -> None:
        """Copy the chosen chunks to ``out``, from the buffer; recall those that it lacks.

        A prompt's chunks leave for the host when they are first seen, and the first choice goes
        into the buffer on the way; ``source`` is not read again.
        """
        order, best = self.order[layer], self.chosen[layer].tolist()
        held = self.places[order]
        new = not any(held)
        lacking = [self._look_up(here, chunks) for here, chunks in zip(held, best, strict=True)]
        heads = [head for head, chunks in enumerate(lacking) for _ in chunks]
        chunks = [chunk for row in lacking for chunk in row]
        slots = [held[head][chunk] for head, chunk in zip(heads, chunks, strict=True)]
        if new:
            prompt = torch.cat([chunks_of(part, self.plan).flatten(2) for part in source], -1)
            self._cross(prompt, self.home[order], "to_host", "prefill", layer)
            self.buffer[order, heads, slots] = prompt[heads, chunks]
        elif chunks:
            self._missed += len(chunks)
            asked = self.home[order, heads, chunks]
            asked = asked.pin_memory() if self._pin else asked
            came = torch.empty_like(asked, device=self.buffer.device)
            self._cross(asked, came, "to_device", RECALL, layer)
            self.buffer[order, heads, slots] = came
        if not new:
            self._found += sum(map(len, best)) - len(chunks)
        places = [[here[chunk] for chunk in row] for here, row in zip(held, best, strict=True)]
        index = torch.tensor(places, device=self.buffer.device)[..., None]
        rows = torch.take_along_dim(self.buffer[order], index, 1).unflatten(-1, (2, -1))
        for part, into in zip(rows.unbind(2), out, strict=True):
            into[0].copy_(part.reshape(into.shape[1:]))

    def _look_up(self, held: OrderedDict[int, int], best: list[int]) -> list[int]:
        """Give every chosen chunk of a head a slot; those that had none."""
        lacking = [chunk for chunk in best if chunk not in held]
        for chunk in best:
            if chunk in held:
                held.move_to_end(chunk)
        for chunk in lacking:
            full = len(held) == self.slots
            held[chunk] = held.popitem(last=False)[1] if full else len(held)
        return lacking

    def _cross(
        self, source: torch.Tensor, target: torch.Tensor, way: Direction, why: str, layer: int
    ) -> None:
        """Copy over the link, and wait."""
        link = self.full.pipeline.link
        sent, into = source.contiguous().view(torch.uint8), target.view(torch.uint8)
        link.wait(link.copy(sent, into, way, why, layer, tier=1))
