"""Prompts that were read once, for runs that begin with the same caches.

What a prompt leaves in a cache depends on the prompt, the model as it is now and the cache's own
settings, and on nothing else: not on the method, the seed, or how long the output will be. So a run
that finds it here copies it in, and goes on bit for bit as if it had read the prompt itself.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil
import torch

from mspeckv.decoding.reader import ModelReader
from mspeckv.fingerprint import structure, weights
from mspeckv.kv.blocks import BlockLayer
from mspeckv.kv.cache import FullCache
from mspeckv.kv.coarse import CoarseCache
from mspeckv.kv.layers import PlacedLayer
from mspeckv.kv.link import KVLink
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.streaming import StreamingCache

PlacedCache = FullCache | RetrievalCache | CoarseCache | StreamingCache
MOST_BYTES = 2 << 30
"""Bytes kept at most, unless a quarter of the free memory is less."""


class Prefills:
    """The last few prompts read, cache by cache, in host memory.

    Args:
        limit: bytes kept at most; default: 2 GiB, or a quarter of what is free.

    Attributes:
        shared: whether the last run took up tier 2's prompt instead of reading it.
        saved_seconds: what the last run saved: the time that reading took when it was done, less
            that of taking it up (measured).
    """

    def __init__(self, limit: int | None = None) -> None:
        free = int(psutil.virtual_memory().available)
        self.limit = min(MOST_BYTES, free // 4) if limit is None else limit
        self.shared, self.saved_seconds = False, 0.0
        self._kept: OrderedDict[tuple[object, ...], Kept] = OrderedDict()
        self._turn = threading.Lock()

    @property
    def bytes(self) -> int:
        """Bytes kept."""
        return sum(one.bytes for one in self._kept.values())

    def read(self, readers: Iterable[ModelReader], prompt: Sequence[int], link: KVLink) -> None:
        """Have every reader's caches hold ``prompt``: take up what is kept, read and keep the rest.

        Args:
            readers: with empty caches; a reader's watcher may fill a cache of its own.
            prompt: token ids.
            link: carries what a reader sends to the host.
        """
        self.shared, self.saved_seconds = False, 0.0
        for reader in readers:
            start = time.perf_counter()
            caches = filled_by(reader)
            model = reader.model, structure(reader.model), weights(reader.model)
            keys = [(*model, tuple(prompt), *settings_of(cache)) for cache in caches]
            found = self._find(keys)
            if found:
                for one, cache in zip(found, caches, strict=True):
                    one.put_into(cache)
                self.shared = isinstance(reader.cache, FullCache)
                self.saved_seconds += found[0].seconds - (time.perf_counter() - start)
                continue
            reader.prefill(list(prompt))
            link.drain()
            seconds = time.perf_counter() - start
            for key, cache in zip(keys, caches, strict=True):
                self._keep(key, cache, seconds)

    def _find(self, keys: list[tuple[object, ...]]) -> list[Kept]:
        """What is kept under ``keys``, if it is kept under all."""
        with self._turn:
            if not all(key in self._kept for key in keys):
                return []
            for key in keys:
                self._kept.move_to_end(key)
            return [self._kept[key] for key in keys]

    def _keep(self, key: tuple[object, ...], cache: PlacedCache, seconds: float) -> None:
        """Keep one more; drop those that were used longest ago."""
        room = self.limit - sum(part.nbytes for part in contents_of(cache))
        if room < 0:
            return
        one = Kept.of(cache, seconds)
        with self._turn:
            self._kept.pop(key, None)
            while self.bytes > room:
                self._kept.popitem(last=False)
            self._kept[key] = one


@dataclass(frozen=True)
class Kept:
    """What a prompt left in one cache.

    Attributes:
        counts: tokens and finished blocks by layer.
        dropped: tokens that tier 0 left out.
        contents: copies of `contents_of` the cache.
        chosen: chunks that tier 1 chose, by layer.
        seconds: what reading took.
    """

    counts: tuple[tuple[int, int], ...]
    dropped: int
    contents: tuple[torch.Tensor, ...]
    chosen: tuple[torch.Tensor, ...]
    seconds: float

    @classmethod
    def of(cls, cache: PlacedCache, seconds: float) -> Kept:
        """Copies, in host memory."""
        return cls(
            counts=tuple((layer.length, _blocks(layer)) for layer in cache.layers),
            dropped=cache.dropped if isinstance(cache, StreamingCache) else 0,
            contents=_copies(contents_of(cache)),
            chosen=_copies(cache.chosen) if isinstance(cache, RetrievalCache) else (),
            seconds=seconds,
        )

    def put_into(self, cache: PlacedCache) -> None:
        """Copy it into an empty cache with the same settings, of any capacity that it fits."""
        for layer, (length, blocks) in zip(cache.layers, self.counts, strict=True):
            layer.length = length
            if isinstance(layer, BlockLayer):
                layer.blocks = blocks
        for there, here in zip(contents_of(cache), self.contents, strict=True):
            there.copy_(here)
        if isinstance(cache, RetrievalCache):
            cache.chosen = [one.to(cache.landmarks.device) for one in self.chosen]
        if isinstance(cache, StreamingCache):
            cache.dropped = self.dropped

    @property
    def bytes(self) -> int:
        """Bytes of the copies."""
        return sum(part.nbytes for part in (*self.contents, *self.chosen))


def contents_of(cache: PlacedCache) -> list[torch.Tensor]:
    """Everything that a cache's layers hold, and tier 1's landmarks, as views."""
    parts = [part for layer in cache.layers for part in layer.contents]
    return [*parts, *([cache.landmarks] if isinstance(cache, RetrievalCache) else [])]


def filled_by(reader: ModelReader) -> list[PlacedCache]:
    """The caches that a reader's prefill fills: its own, and the one that watches it."""
    watching = getattr(reader.watcher, "__self__", None)
    return [reader.cache, *([watching] if isinstance(watching, RetrievalCache) else [])]


def settings_of(cache: PlacedCache) -> tuple[object, ...]:
    """What a cache's contents after a prompt depend on, beside prompt and model."""
    if isinstance(cache, FullCache):
        return "full", cache.policy
    if isinstance(cache, RetrievalCache):
        return "retrieval", cache.plan, cache.policy
    assert isinstance(cache, StreamingCache)
    return "streaming", cache.sinks, cache.window


def _blocks(layer: PlacedLayer) -> int:
    return layer.blocks if isinstance(layer, BlockLayer) else 0


def _copies(parts: Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return tuple(part.detach().to("cpu", copy=True) for part in parts)
