"""Prompts that were read once, for runs that begin with the same one.

Saves a further run the reading of its prompt: at 1 k on two cores its first token comes after 0.3
to 0.8 s instead of 2.5 s.

What the pass over a prompt computes for attention depends on the prompt and the model as it is now,
and on nothing else: not on where KV lies, how wide it is, the method, the link or the seed. So its
keys and values, and the last queries, which choose tier 1's chunks, are kept as they came; and a
run that finds them hands them to its own caches, layer by layer, by the calls that the pass makes.
What is stored, and what crosses the link for it, is bit for bit what reading the prompt leaves.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import psutil
import torch

from mspeckv.accelerate.fingerprint import structure, weights
from mspeckv.context import Shown
from mspeckv.decoding.reader import ModelReader
from mspeckv.kv.latent import Latents
from mspeckv.kv.link import KVLink
from mspeckv.kv.retrieval import QUERY_WINDOW

Key = tuple[Any, ...]
MOST_BYTES = 2 << 30
"""Bytes kept at most, unless a quarter of the free memory is less."""


@dataclass
class Brought:
    """What the layers of one pass brought: an entry of each list is a layer's, in host memory.

    Attributes:
        layers: how many there will be.
        queries: how many of the last are kept.
        limit: bytes beyond which nothing is.
        seconds: that the pass took, its bytes' way over the link included.
    """

    layers: int
    queries: int
    limit: int
    seconds: float = 0.0
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)
    asking: list[torch.Tensor] = field(default_factory=list)

    def came(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Keep a layer's keys and values, unless all layers' would be too much."""
        if (key.nbytes + value.nbytes) * self.layers <= self.limit:
            self.keys.append(_on_host(key))
            self.values.append(_on_host(value))

    def asked(self, layer: int, query: torch.Tensor, shown: Shown) -> None:
        """Keep its last queries, unless they ask of keys that only a pass expands."""
        if not isinstance(shown, Latents):
            self.asking.append(_on_host(query[:, :, -self.queries :]))

    @property
    def bytes(self) -> int:
        """Bytes kept."""
        return sum(part.nbytes for part in (*self.keys, *self.values, *self.asking))

    @property
    def whole(self) -> bool:
        """Whether every layer is here, and no more than may be."""
        counts = {len(self.keys), len(self.values), len(self.asking)}
        return counts == {self.layers} and self.bytes <= self.limit


class Prefills:
    """The last few prompts read, model by model, in host memory.

    Attributes:
        limit: bytes kept at most.
        shared: whether the last run took up tier 2's prompt instead of reading it.
        saved_seconds: what the last run saved: the time that reading took when it was done, less
            that of taking it up (measured).
    """

    def __init__(self) -> None:
        self.limit = min(MOST_BYTES, int(psutil.virtual_memory().available) // 4)
        self.shared, self.saved_seconds = False, 0.0
        self._kept: OrderedDict[Key, Brought] = OrderedDict()
        self._turn = threading.Lock()

    @property
    def bytes(self) -> int:
        """Bytes kept."""
        return sum(brought.bytes for brought in list(self._kept.values()))

    def read(self, readers: Iterable[ModelReader], prompt: Sequence[int], link: KVLink) -> None:
        """Have every reader's caches hold ``prompt``: take up what is kept, read and keep the rest.

        Args:
            readers: with empty caches; a reader's watcher may fill a cache of its own.
        """
        self.shared, self.saved_seconds = False, 0.0
        for reader in readers:
            # what passes multiply by was compared with the weights as this run began
            read: dict[torch.Tensor, bytes] = {}
            for product in reader.products.values():
                read.update(getattr(product, "digests", {}))
            # a model that nobody else holds is to go, and its prompts with it
            model = ref(reader.model), structure(reader.model), weights(reader.model, read)
            for tokens, position in reader.cache.to_read(list(prompt)):
                self._fill(reader, (*model, position, *tokens), tokens, position, link)

    def _fill(
        self, reader: ModelReader, key: Key, tokens: list[int], position: int, link: KVLink
    ) -> None:
        """Have a reader's caches hold the tokens of one pass."""
        start, looking = time.perf_counter(), reader.seat.onlooker
        # what an onlooker sees now, or the usual one may want to see later
        queries = max(QUERY_WINDOW, looking.query_window if looking is not None else 0)
        brought = self._find(key, min(queries, len(tokens)))
        if brought is not None:
            to, parts = reader.model.device, (brought.keys, brought.values, brought.asking)
            reader.place((k.to(to), v.to(to), q.to(to)) for k, v, q in zip(*parts, strict=True))
            link.drain()
            self.shared = reader.tier == 2
            self.saved_seconds += brought.seconds - (time.perf_counter() - start)
            return
        # states are not among what a pass brings
        limit = 0 if reader.cache.states else self.limit
        brought = Brought(len(reader.cache.layers), queries, limit)
        reader.cache.came, reader.also = brought.came, brought.asked
        try:
            reader.read_prompt(tokens, position)
        finally:
            reader.cache.came = reader.also = None
        link.drain()
        brought.seconds = time.perf_counter() - start
        self._keep(key, brought)

    def _find(self, key: Key, queries: int) -> Brought | None:
        """What is kept under ``key``, if with so many queries."""
        with self._turn:
            found = self._kept.get(key)
            if found is not None and found.asking[0].shape[2] >= queries:
                self._kept.move_to_end(key)
                return found
        return None

    def _keep(self, key: Key, brought: Brought) -> None:
        """Keep one more; drop those that were used longest ago."""
        if brought.whole:
            with self._turn:
                for old in [one for one in self._kept if one == key or not one[0]()]:
                    del self._kept[old]
                while self.bytes > self.limit - brought.bytes:
                    self._kept.popitem(last=False)
                self._kept[key] = brought


def _on_host(part: torch.Tensor) -> torch.Tensor:
    """A copy that lies as ``part`` does: the last bit of a sum may depend on it."""
    return part.detach().to("cpu", copy=True)
